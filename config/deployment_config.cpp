#include "config/schema.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe::config {

namespace {

constexpr double replicas_max = 4096;
constexpr double seconds_max = 1e7;

bundle read_named_resources(const located& value) {
  bundle out;
  if (!value.node.IsMap()) {
    value.error("must be a map of names to amounts");
    return out;
  }
  for (const auto& entry : value.node) {
    auto name = entry.first.IsScalar() ? entry.first.Scalar() : std::string{};
    located amount{entry.second, value.file, value.path + "." + name,
                   value.findings};
    if (name == "CPU" || name == "GPU" || name == "memory")
      amount.error("is given by num_cpus, num_gpus or memory");
    else if (auto given = read_resource(name, amount))
      out[name] = *given;
  }
  return out;
}

void read_actor_options(const located& value, deployment_config& out) {
  map_reader in{value};
  in.refuse({"accelerator_type", "runtime_env", "object_store_memory",
             "label_selector"});
  out.num_cpus = in.number("num_cpus", {0, 4096}).value_or(0);
  out.num_gpus = in.number("num_gpus", {0, 4096}).value_or(0);
  // Ray's examples write 2e9 as well as 2000000000.
  out.memory_bytes =
      static_cast<std::uint64_t>(in.number("memory", {0, 9e15}).value_or(0));
  if (auto resources = in.take("resources"); resources.present())
    out.resources = read_named_resources(resources);
}

} // namespace

std::optional<double> read_resource(const std::string& name,
                                    const located& amount) {
  constexpr std::size_t name_bytes_max = 128;
  auto bad = [](unsigned char c) { return c <= ' ' || c == 127; };
  if (name.empty() || name.size() > name_bytes_max ||
      std::any_of(name.begin(), name.end(), bad)) {
    amount.error("a resource's name must be 1 to 128 characters without "
                 "spaces");
    return std::nullopt;
  }
  return read_number(amount, {0, name == "memory" ? 9e15 : 1e6});
}

deployment_config read_deployment_config(const located& value) {
  deployment_config out;
  map_reader in{value};
  auto replicas = in.take("num_replicas");
  auto automatic = replicas.present() && replicas.node.IsScalar() &&
                   replicas.node.Scalar() == "auto";
  if (replicas.present() && !automatic)
    out.num_replicas = read_integer(replicas, {1, replicas_max});
  auto scaling = in.take("autoscaling_config");
  if (scaling.present() || automatic) {
    if (out.num_replicas)
      scaling.error("stands beside a fixed num_replicas; give one of the two");
    out.autoscaling = read_autoscaling_config(
        scaling.present() ? scaling : replicas, automatic ? 100 : 1);
  }
  out.max_ongoing_requests = in.integer("max_ongoing_requests", {1, 2e9})
                                 .value_or(out.max_ongoing_requests);
  if (auto queued = in.take("max_queued_requests"); queued.present()) {
    out.max_queued_requests = read_integer(queued, {-1, 1e9}).value_or(-1);
    if (out.max_queued_requests == 0)
      queued.error("must be -1 (no bound of its own) or at least 1");
  }
  auto seconds = [&](std::string_view key, double low, double fallback) {
    return in.number(key, {low, seconds_max}).value_or(fallback);
  };
  out.health_check_period_s = seconds("health_check_period_s", 0.5, 10);
  out.health_check_timeout_s = seconds("health_check_timeout_s", 1.5, 10);
  out.graceful_shutdown_timeout_s =
      seconds("graceful_shutdown_timeout_s", 0, 20);
  // Ray looks for the end of the last request so often; here it is an event.
  seconds("graceful_shutdown_wait_loop_s", 0, 2);
  out.max_constructor_retry_count =
      in.integer("max_constructor_retry_count", {1, 1000});
  out.max_replicas_per_node = in.integer("max_replicas_per_node", {1, 100});
  if (auto options = in.take("ray_actor_options"); options.present())
    read_actor_options(options, out);
  if (auto router = in.take("request_router_config"); router.present())
    out.router = read_request_router(router);
  for (auto key : {"placement_group_bundles", "placement_group_strategy"})
    in.refuse(key, "belongs into placement_group_config of the model");
  in.refuse("user_config",
            "is what Ray gives to a deployment's method reconfigure(), which "
            "its LLM server has not: nothing would read it; leave it out");
  in.refuse({"name", "logging_config", "gang_scheduling_config",
             "rolling_update_percentage", "version", "max_concurrent_queries"});
  return out;
}

} // namespace troupe::config
