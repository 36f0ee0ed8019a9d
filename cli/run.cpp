#include "actors/runtime/logging.hpp"
#include "actors/runtime/token.hpp"
#include "cli/commands.hpp"
#include "cli/load_config.hpp"
#include "cli/progress.hpp"
#include "config/serve_config.hpp"
#include "node/ending.hpp"
#include "node/node_facts.hpp"
#include "node/node_process.hpp"
#include "node/serve_document.hpp"
#include "node/state_directory.hpp"

#include <fmt/format.h>

#include <unistd.h>

namespace troupe::cli {

namespace {

using std::chrono::milliseconds;

/// How often the models are looked at while they come up, and later.
constexpr milliseconds look_early{100};
constexpr milliseconds look_later{1000};

constexpr std::chrono::seconds end_time{10};

runtime::logging_options logging_of(const config::serve_config& config,
                                    const std::string& process) {
  runtime::logging_options out;
  out.level = config.logging.level;
  out.json = config.logging.json;
  out.process = process;
  return out;
}

node::node_options options_of(const run_arguments& args,
                              const config::serve_config& config) {
  node::node_options out;
  out.http.host = args.host.empty() ? config.http.host : args.host;
  out.http.port =
      args.port < 0 ? config.http.port : static_cast<std::uint16_t>(args.port);
  out.admin.port = args.admin_port;
  out.state_dir =
      args.state_dir.empty() ? node::default_state_dir() : args.state_dir;
  out.cpu_only = args.cpu_only;
  if (!args.replica_program.empty())
    out.replica_executable = std::filesystem::absolute(args.replica_program);
  out.replica_logging = logging_of(config, "");
  return out;
}

/// Shows how the models come up and go, and where it listens (node.json), until
/// a signal comes.
void watch(node::node_process& cluster,
           const std::filesystem::path& state_dir) {
  progress terminal{::isatty(STDOUT_FILENO) == 1};
  auto announced = false;
  node::node_facts written;
  while (!node::ending_within(announced ? look_later : look_early)) {
    if (auto now = cluster.facts();
        now != written && node::write_facts(state_dir, now))
      written = now;
    auto status = cluster.status();
    if (!status)
      continue;
    terminal.show(*status);
    if (!announced && progress::settled(*status)) {
      announced = true;
      auto facts = cluster.facts();
      fmt::print("serving http://{}:{} (admin: http://{}:{}), Ctrl-C ends\n",
                 facts.http_host, facts.http_port, facts.admin_host,
                 facts.admin_port);
      std::fflush(stdout);
    }
  }
}

} // namespace

int run(const run_arguments& args) {
  auto loaded = load_config(args.config);
  if (!report(loaded.findings))
    return 2;
  auto options = options_of(args, loaded.values);
  auto fail = [](const error& why, int status = 1) {
    fmt::print(stderr, "{}\n", why.message);
    return status;
  };
  const auto state_dir = options.state_dir;
  if (auto made = node::make_state_dir(state_dir); !made)
    return fail(made.error());
  if (auto done = runtime::set_up_logging(logging_of(loaded.values, "head"));
      !done)
    return fail(done.error(), 2);
  node::hold_ending_signals();
  auto document = node::read_document(troupe::config::to_json(args.config),
                                      args.config.string(), args.cpu_only,
                                      runtime::seconds_now());
  if (!document.wanted)
    return fail({errc::internal, "the file changed while it was read"});
  node::head_role alone;
  alone.wanted = std::move(document.wanted);
  auto cluster = node::node_process::start(std::move(options), alone);
  if (!cluster)
    return fail(cluster.error());
  watch(**cluster, state_dir);
  auto patience = (*cluster)->patience();
  fmt::print("\nstopping: answers under way may take {:.0f} s, Ctrl-C again "
             "ends at once\n",
             patience.count() / 1000.0);
  std::fflush(stdout);
  node::end_at_next_signal();
  auto clean = (*cluster)->stop(patience);
  node::remove_facts(state_dir);
  node::end_at_the_latest(end_time);
  return clean ? 0 : 1;
}

} // namespace troupe::cli
