#include "config/schema.hpp"

#include <fmt/format.h>

namespace troupe::config {

namespace {

constexpr double replicas_max = 4096;
constexpr double seconds_max = 1e7;

autoscaling_config read_autoscaling(const located& value,
                                    std::int64_t default_max) {
  autoscaling_config out;
  map_reader in{value};
  out.min_replicas = in.integer("min_replicas", {0, replicas_max}).value_or(1);
  out.max_replicas =
      in.integer("max_replicas", {1, replicas_max}).value_or(default_max);
  out.initial_replicas = in.integer("initial_replicas", {0, replicas_max});
  // Checked now, used once there is an autoscaler; the note below says so.
  in.number("target_ongoing_requests", {1e-9, 1e12});
  for (auto key :
       {"upscale_delay_s", "downscale_delay_s", "downscale_to_zero_delay_s",
        "metrics_interval_s", "look_back_period_s"})
    in.number(key, {0, seconds_max});
  for (auto key : {"upscaling_factor", "downscaling_factor", "smoothing_factor",
                   "upscale_smoothing_factor", "downscale_smoothing_factor"})
    in.number(key, {1e-9, 1e6});
  in.choice("aggregation_function", {"mean", "max", "min"});
  in.refuse("policy");
  if (out.max_replicas < out.min_replicas)
    value.error(fmt::format("max_replicas ({}) is below min_replicas ({})",
                            out.max_replicas, out.min_replicas));
  if (out.initial_replicas && (*out.initial_replicas < out.min_replicas ||
                               *out.initial_replicas > out.max_replicas))
    value.error(fmt::format("initial_replicas ({}) must lie between "
                            "min_replicas ({}) and max_replicas ({})",
                            *out.initial_replicas, out.min_replicas,
                            out.max_replicas));
  if (out.start_replicas() == 0)
    value.error("scaling to zero: not supported yet; set initial_replicas or "
                "min_replicas to 1 or more");
  else
    value.note(fmt::format("there is no autoscaler yet: {} replica{} will run, "
                           "whatever the load",
                           out.start_replicas(),
                           out.start_replicas() == 1 ? "" : "s"));
  return out;
}

double read_actor_options(const located& value) {
  map_reader in{value};
  in.refuse({"num_gpus", "memory", "resources", "accelerator_type",
             "runtime_env", "object_store_memory", "label_selector"});
  return in.number("num_cpus", {0, 4096}).value_or(0);
}

} // namespace

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
    out.autoscaling = read_autoscaling(scaling.present() ? scaling : replicas,
                                       automatic ? 100 : 1);
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
    out.num_cpus = read_actor_options(options);
  for (auto key : {"placement_group_bundles", "placement_group_strategy"})
    in.refuse(key, "belongs into placement_group_config of the model");
  in.refuse({"name", "user_config", "logging_config", "request_router_config",
             "gang_scheduling_config", "rolling_update_percentage", "version",
             "max_concurrent_queries"});
  return out;
}

} // namespace troupe::config
