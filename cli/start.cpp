#include "actors/runtime/authority.hpp"
#include "actors/runtime/listen_address.hpp"
#include "actors/runtime/logging.hpp"
#include "actors/runtime/token.hpp"
#include "cli/commands.hpp"
#include "config/cluster_config.hpp"
#include "node/admin_client.hpp"
#include "node/background.hpp"
#include "node/ending.hpp"
#include "node/node_process.hpp"
#include "node/state_directory.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <unistd.h>

namespace troupe::cli {

namespace {

constexpr std::chrono::seconds end_time{10};
constexpr std::chrono::seconds background_time{40};
constexpr std::chrono::hours printed_token_time{24};

int fail(const error& why) {
  fmt::print(stderr, "{}\n", why.message);
  return why.code == errc::invalid_argument ? 2 : 1;
}

std::uint16_t port_or(int given, int otherwise) {
  return static_cast<std::uint16_t>(given < 0 ? otherwise : given);
}

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return *name ? name : "worker";
}

runtime::logging_options logging_of(const start_arguments& args,
                                    const std::string& process) {
  runtime::logging_options out;
  out.level = args.log_level;
  out.json = args.log_encoding == "JSON";
  out.process = process;
  return out;
}

result<node_agent::given_resources> resources_of(const start_arguments& args) {
  node_agent::given_resources out;
  if (args.cpus >= 0)
    out.cpus = args.cpus;
  if (args.gpus >= 0)
    out.gpus = args.gpus;
  if (args.memory_bytes >= 0)
    out.memory_bytes = static_cast<std::uint64_t>(args.memory_bytes);
  if (!args.resources.empty()) {
    auto custom = node_agent::parse_resources(args.resources);
    if (!custom)
      return error{errc::invalid_argument,
                   "--resources: " + custom.error().message};
    out.custom = std::move(*custom);
  }
  if (!args.labels.empty()) {
    auto labels = node_agent::parse_labels(args.labels);
    if (!labels)
      return error{errc::invalid_argument,
                   "--labels: " + labels.error().message};
    out.labels = std::move(*labels);
  }
  return out;
}

result<node::node_options> options_of(const start_arguments& args) {
  node::node_options out;
  out.name = !args.name.empty() ? args.name : args.head ? "head" : host_name();
  out.address = args.address;
  if (auto fine = runtime::check_listen_address(out.address); !fine)
    return error{fine.error().code,
                 "--node-ip-address: " + fine.error().message};
  out.http = {args.http_host, port_or(args.http_port, 8000)};
  out.admin = {args.admin_host, port_or(args.admin_port, args.head ? 8265 : 0)};
  auto given = resources_of(args);
  if (!given)
    return given.error();
  out.given = std::move(*given);
  out.state_dir =
      args.state_dir.empty() ? node::default_state_dir() : args.state_dir;
  out.cpu_only = args.cpu_only;
  if (!args.replica_program.empty())
    out.replica_executable = std::filesystem::absolute(args.replica_program);
  out.replica_logging = logging_of(args, "");
  return out;
}

result<std::string> token_of(const start_arguments& args) {
  if (args.token_file.empty())
    return args.token;
  std::ifstream file{args.token_file};
  std::string out;
  if (!(file >> out))
    return error{
        errc::invalid_argument,
        fmt::format("--token-file: {} {}", args.token_file.string(),
                    file.is_open() ? "holds no token" : "cannot be read")};
  return out;
}

/// The findings of the file are printed here.
result<config::cluster_config> read_cluster(const std::filesystem::path& file) {
  auto loaded = config::load_cluster(file);
  for (const auto& finding : loaded.findings.all())
    fmt::print(stderr, "{}\n", to_string(finding));
  if (loaded.findings.has_errors())
    return error{errc::invalid_argument,
                 fmt::format("{} errors in {}", loaded.findings.error_count(),
                             file.string())};
  return std::move(loaded.values);
}

result<node::node_role> role_of(const start_arguments& args) {
  if (args.head) {
    node::head_role out;
    out.open =
        node::entrance{static_cast<std::uint16_t>(args.join_port),
                       port_or(args.cluster_port,
                               args.join_port == 0 ? 0 : args.join_port + 1)};
    if (!args.cluster.empty()) {
      auto cluster = read_cluster(args.cluster);
      if (!cluster)
        return cluster.error();
      out.cluster = std::move(*cluster);
    }
    return out;
  }
  if (args.head_address.empty())
    return error{errc::invalid_argument,
                 "give --head, or --address HOST:PORT of a head to join"};
  auto colon = args.head_address.rfind(':');
  auto port = colon == std::string::npos
                  ? 0
                  : std::atoi(args.head_address.c_str() + colon + 1);
  if (port < 1 || port > 65'535 || colon == 0)
    return error{errc::invalid_argument,
                 fmt::format("--address {}: give HOST:PORT of the head's join "
                             "port",
                             args.head_address)};
  auto token = token_of(args);
  if (!token)
    return token.error();
  node::worker_role out;
  out.host = args.head_address.substr(0, colon);
  if (out.host.starts_with('[') && out.host.ends_with(']'))
    out.host = out.host.substr(1, out.host.size() - 2);
  out.port = static_cast<std::uint16_t>(port);
  out.token = std::move(*token);
  return out;
}

std::string url(const std::string& host, std::uint16_t port) {
  return "http://" + node::to_string(node::admin_place{host, port});
}

std::string up_line(const node::node_facts& facts) {
  auto out =
      fmt::format("node {} is up: http {}, admin {}", facts.node,
                  facts.http_port == 0 ? std::string{"off"}
                                       : url(facts.http_host, facts.http_port),
                  url(facts.admin_host, facts.admin_port));
  if (facts.join_port != 0)
    out += fmt::format(", join {}", node::to_string(node::admin_place{
                                        facts.address, facts.join_port}));
  return out;
}

/// Until a signal comes, or the head has shut the node out; the public port
/// comes and goes as the head wants.
void keep_facts(const std::filesystem::path& state_dir,
                node::node_process& running) {
  auto written = running.facts();
  while (!node::ending_within(std::chrono::seconds{1}) && !running.shut_out()) {
    auto now = running.facts();
    if (now != written && node::write_facts(state_dir, now))
      written = now;
  }
}

int block(const start_arguments& args) {
  auto options = options_of(args);
  if (!options)
    return fail(options.error());
  auto role = role_of(args);
  if (!role)
    return fail(role.error());
  auto state_dir = options->state_dir;
  if (auto made = node::make_state_dir(state_dir); !made)
    return fail(made.error());
  if (auto done = runtime::set_up_logging(logging_of(args, options->name));
      !done)
    return fail(done.error());
  node::hold_ending_signals();
  auto started = node::node_process::start(std::move(*options), *role);
  if (!started)
    return fail(started.error());
  auto& running = **started;
  if (auto written = node::write_facts(state_dir, running.facts()); !written)
    return fail(written.error());
  fmt::print("{}\n", up_line(running.facts()));
  std::fflush(stdout);
  node::tell_parent(node::to_json(running.facts()));
  keep_facts(state_dir, running);
  node::end_at_next_signal();
  auto why = running.shut_out();
  auto clean = running.stop(running.patience());
  node::remove_facts(state_dir);
  node::end_at_the_latest(end_time);
  if (why)
    return fail(*why);
  return clean ? 0 : 1;
}

/// The command line of this process, for the one in the background; but for the
/// token, which everybody on the machine could read there for as long as it
/// runs.
std::vector<std::string> own_arguments() {
  constexpr std::string_view option = "--token";
  std::ifstream file{"/proc/self/cmdline", std::ios::binary};
  std::vector<std::string> out;
  std::string one;
  std::getline(file, one, '\0'); // the program's name
  while (std::getline(file, one, '\0'))
    if (one == option)
      std::getline(file, one, '\0');
    else if (!one.starts_with(std::string{option} + "="))
      out.push_back(one);
  return out;
}

void print_next_steps(const node::node_facts& facts,
                      const std::filesystem::path& state_dir) {
  auto admin = url(facts.admin_host, facts.admin_port);
  if (facts.role == "worker") {
    fmt::print("`troupe stop --state-dir {}` ends it\n", state_dir.string());
    return;
  }
  fmt::print("deploy a file:  troupe deploy serve.yaml -a {}\n"
             "look at it:     troupe status -a {}\n",
             admin, admin);
  auto issuer = runtime::authority::open(state_dir / "authority");
  if (!issuer)
    return;
  if (auto token = runtime::create_token(*issuer, printed_token_time))
    fmt::print(
        "join a worker (this token is good for 24 hours):\n"
        "  troupe start --address {} --node-ip-address ITS_ADDRESS "
        "--token {}\n",
        node::to_string(node::admin_place{facts.address, facts.join_port}),
        token->text);
}

int in_background(const start_arguments& args) {
  auto state_dir =
      args.state_dir.empty() ? node::default_state_dir() : args.state_dir;
  if (auto made = node::make_state_dir(state_dir); !made)
    return fail(made.error());
  // What can be known to be wrong is said here, not in a log file.
  if (auto options = options_of(args); !options)
    return fail(options.error());
  if (auto role = role_of(args); !role)
    return fail(role.error());
  auto log = state_dir / "log";
  auto arguments = own_arguments();
  arguments.push_back("--block");
  if (!args.token.empty())
    ::setenv(token_variable, args.token.c_str(), 1);
  auto told = node::run_in_background(arguments, log, background_time);
  if (!told)
    return fail(told.error());
  auto facts = node::read_facts(state_dir);
  if (!facts)
    return fail(facts.error());
  fmt::print("{}\nits log is {}\n", up_line(*facts), log.string());
  print_next_steps(*facts, state_dir);
  return 0;
}

} // namespace

int start(const start_arguments& args) {
  ::unsetenv(token_variable); // replicas are not to inherit it
  return args.block ? block(args) : in_background(args);
}

} // namespace troupe::cli
