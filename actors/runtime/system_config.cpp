#include "actors/runtime/system_config.hpp"

#include "actors/runtime/certificate.hpp"
#include "actors/runtime/tls_guard.hpp"

#include <caf/atom.hpp>
#include <caf/io/middleman.hpp>
#include <caf/openssl/manager.hpp>

#include <csignal>
#include <string>
#include <vector>

namespace troupe::runtime {

system_config::system_config(const system_options& options)
    : tls(options.tls), credentials_good(check_credentials(options.tls)) {
  // Writing to a connection that is gone is an error, not the end.
  std::signal(SIGPIPE, SIG_IGN);
  guard_tls();
  load<caf::io::middleman>();
  load<caf::openssl::manager>();
  add_message_types<caf::id_block::troupe>();
  openssl_certificate = options.tls.certificate.string();
  openssl_key = options.tls.key.string();
  openssl_cafile = options.tls.authority.string();
  set("scheduler.policy", caf::atom("sharing"));
  set("scheduler.max-threads", options.threads);
  set("middleman.app-identifiers", std::vector<std::string>{"troupe-1"});
  set("middleman.enable-automatic-connections", false);
  set("middleman.heartbeat-interval", caf::timespan{options.heartbeat});
  set("middleman.connection-timeout", caf::timespan{options.silence_max});
  set("logger.console", caf::atom("none"));
  set("logger.file-verbosity", caf::atom("quiet"));
  set("logger.console-verbosity", caf::atom("quiet"));
}

} // namespace troupe::runtime
