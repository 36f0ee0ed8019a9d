#include "node/bring_nodes.hpp"

#include "actors/node_agent/resources.hpp"
#include "actors/runtime/token.hpp"
#include "node/admin_client.hpp"
#include "node/background.hpp"
#include "node/provider/subprocess.hpp"
#include "router/api/json_writer.hpp"

#include <fmt/format.h>

#include <cmath>

namespace troupe::node {

namespace {

using namespace std::chrono_literals;

/// What a new node joins with; it needs it once, soon after its start.
constexpr auto token_time = 10min;
constexpr auto token_variable = "TROUPE_TOKEN";

/// As `troupe start` takes them: what has an option of its own, and the rest.
node_agent::given_resources given(const config::node_type_config& type) {
  node_agent::given_resources out;
  out.gpus = 0;
  for (const auto& [name, amount] : type.resources)
    if (name == "CPU")
      out.cpus = amount;
    else if (name == "GPU")
      out.gpus = amount;
    else if (name == "memory")
      out.memory_bytes = static_cast<std::uint64_t>(std::llround(amount));
    else
      out.custom.push_back({name, amount});
  return out;
}

/// As a node of the type will join.
autoscaler::node_type promised(const config::node_type_config& type) {
  autoscaler::node_type out;
  out.name = type.name;
  out.min_workers = type.min_workers;
  out.max_workers = type.max_workers;
  auto node = node_agent::describe_node("", "", given(type));
  out.resources = autoscaler::amounts_of(node.resources);
  out.engines = node.engines;
  return out;
}

worker_command command_of(const config::node_type_config& type,
                          const node_options& head, std::uint16_t join_port) {
  worker_command out;
  out.executable = type.executable.empty() ? "/proc/self/exe" : type.executable;
  auto& line = out.arguments;
  auto add = [&](std::string option, std::string value) {
    line.push_back(std::move(option));
    line.push_back(std::move(value));
  };
  line = {"start", "--block"};
  add("--address", to_string(admin_place{head.address, join_port}));
  add("--node-ip-address", head.address);
  add("--http-port", "0");
  add("--log-level", head.replica_logging.level);
  add("--log-encoding", head.replica_logging.json ? "JSON" : "TEXT");
  auto has = given(type);
  if (has.cpus)
    add("--num-cpus", fmt::format("{}", *has.cpus));
  add("--num-gpus", fmt::format("{}", *has.gpus));
  if (has.memory_bytes)
    add("--memory", fmt::format("{}", *has.memory_bytes));
  if (!has.custom.empty()) {
    api::json_writer json;
    json.begin_object();
    for (const auto& [name, amount] : has.custom)
      json.key(name).json(fmt::format("{}", amount));
    add("--resources", json.end_object().take());
  }
  if (head.replica_executable != "/proc/self/exe")
    add("--replica-program", head.replica_executable.string());
  return out;
}

} // namespace

std::filesystem::path nodes_directory(const std::filesystem::path& state_dir) {
  return state_dir / "nodes";
}

autoscaler::node_bringing bring_nodes(const config::cluster_config& cluster,
                                      const node_options& head,
                                      std::uint16_t join_port,
                                      const runtime::authority& issuer) {
  autoscaler::node_bringing out;
  auto& options = out.options;
  options.max_workers = cluster.max_workers;
  options.upscaling_speed = cluster.upscaling_speed;
  options.idle_timeout = std::chrono::milliseconds{
      std::llround(cluster.idle_timeout_minutes * 60'000)};
  subprocess_options processes;
  processes.directory =
      std::filesystem::absolute(nodes_directory(head.state_dir));
  for (const auto& type : cluster.node_types) {
    options.types.push_back(promised(type));
    processes.types[type.name] = command_of(type, head, join_port);
  }
  processes.inherited = environment_for_others();
  using variables = std::vector<std::pair<std::string, std::string>>;
  processes.environment = [issuer]() -> result<variables> {
    auto token = runtime::create_token(issuer, token_time);
    if (!token)
      return token.error();
    return variables{{token_variable, token->text}};
  };
  out.provider = make_subprocess_provider(std::move(processes));
  out.living = out.provider->living();
  return out;
}

} // namespace troupe::node
