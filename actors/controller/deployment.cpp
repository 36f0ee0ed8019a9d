#include "actors/controller/deployment.hpp"

#include "actors/protocol/cluster_layout.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::protocol {

template <>
struct layout<controller::model_deployment> {
  using r = controller::model_deployment;
  static constexpr std::string_view name = "model_deployment";
  static constexpr auto fields = std::tuple{
      number(1, &r::spec),
      number(2, &r::route_prefix),
      number(3, &r::note),
      number(4, &r::replicas),
      number(5, &r::replicas_per_node_max),
      number(6, &r::needs_gpu),
      number(7, &r::accelerator_type),
      number(8, &r::cpus),
      number(9, &r::created),
  };
};

template <>
struct layout<controller::deployment> {
  using r = controller::deployment;
  static constexpr std::string_view name = "deployment";
  static constexpr auto fields = std::tuple{number(1, &r::models)};
};

} // namespace troupe::protocol

namespace troupe::controller {

codec::bytes encode(const deployment& from) {
  return protocol::encode_record(from);
}

result<deployment> decode_deployment(codec::bytes_view from) {
  return protocol::decode_record<deployment>(from);
}

namespace {

std::uint32_t milliseconds(double seconds) {
  return static_cast<std::uint32_t>(
      std::min(std::llround(seconds * 1000), 0xFFFF'FFFFll));
}

protocol::replica_spec to_spec(const config::llm_config& model,
                               const std::string& application,
                               const config::troupe_options& own) {
  protocol::replica_spec spec;
  spec.application = application;
  spec.model = model.model_id;
  spec.model_source = model.model_source.string();
  spec.tokenizer_source = model.tokenizer_source.string();
  spec.max_model_len = model.engine.max_model_len;
  spec.max_num_seqs = model.engine.max_num_seqs;
  spec.max_num_batched_tokens = model.engine.max_num_batched_tokens;
  spec.block_size = model.engine.block_size;
  spec.kv_cache_bytes = model.engine.kv_cache_memory_bytes;
  spec.enable_prefix_caching = model.engine.enable_prefix_caching;
  spec.threads = static_cast<std::int32_t>(own.threads_per_replica);
  spec.chat_template = model.engine.chat_template;
  spec.environment = model.env_vars;
  const auto& bounds = model.deployment;
  // Ray's default of 10^9 means no bound; a replica then keeps its own.
  constexpr std::int64_t bounded_max = 65'536;
  if (bounds.max_ongoing_requests <= bounded_max)
    spec.max_ongoing_requests =
        static_cast<std::uint32_t>(bounds.max_ongoing_requests);
  spec.graceful_shutdown_timeout_ms =
      milliseconds(bounds.graceful_shutdown_timeout_s);
  spec.start_retries = static_cast<std::uint32_t>(
      bounds.max_constructor_retry_count.value_or(
          std::min<std::int64_t>(3 * bounds.replicas(), 20)));
  spec.health_check_period_ms = milliseconds(bounds.health_check_period_s);
  spec.health_check_timeout_ms = milliseconds(bounds.health_check_timeout_s);
  return spec;
}

/// Ray counts a replica's bundles together with its actor's own CPUs.
double counted_cpus(const config::llm_config& model) {
  auto sum = model.deployment.num_cpus;
  for (const auto& bundle : model.bundles)
    sum += bundle.at("CPU");
  return sum;
}

model_deployment to_model(const config::llm_config& model,
                          const config::application& application,
                          const config::serve_config& whole, bool cpu_only,
                          std::uint64_t now) {
  model_deployment out;
  out.spec = to_spec(model, application.name, whole.troupe);
  out.route_prefix = whole.http.root_path.empty()
                         ? application.route_prefix
                     : application.route_prefix == "/"
                         ? whole.http.root_path
                         : whole.http.root_path + application.route_prefix;
  out.replicas = static_cast<std::uint32_t>(model.deployment.replicas());
  out.replicas_per_node_max = static_cast<std::uint32_t>(
      model.deployment.max_replicas_per_node.value_or(0));
  out.needs_gpu = model.device == config::device_wish::gpu && !cpu_only;
  if (out.needs_gpu)
    out.accelerator_type = model.accelerator_type;
  out.cpus = counted_cpus(model);
  out.created = now;
  if (model.deployment.autoscaling)
    out.note = "autoscaling_config: there is no autoscaler yet, " +
               std::to_string(out.replicas) + " run whatever the load";
  return out;
}

} // namespace

deployment to_deployment(const config::serve_config& config, bool cpu_only,
                         std::uint64_t now) {
  deployment out;
  for (const auto& application : config.applications)
    for (const auto& model : application.models)
      out.models.push_back(
          to_model(model, application, config, cpu_only, now));
  return out;
}

} // namespace troupe::controller
