#include "actors/controller/deployment.hpp"

#include "actors/controller/scaling_layout.hpp"
#include "actors/protocol/cluster_layout.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::controller {

namespace {

constexpr std::uint32_t replicas_max = 65'536;
constexpr std::size_t bundles_max = 1'024;

// As written: bundles are lists of amounts.

struct written_bundle {
  std::vector<protocol::resource> amounts;

  bool operator==(const written_bundle&) const = default;
};

struct written_model {
  model_deployment model; ///< without bundles
  std::vector<written_bundle> bundles;

  bool operator==(const written_model&) const = default;
};

struct written_deployment {
  std::vector<written_model> models;
  std::vector<stored_application> applications;
  std::string rest_json;
  protocol::router_settings settings;
  proxy_location proxies = proxy_location::every_node;
  std::optional<double> target_capacity;
  bool capacity_rising = false;
};

} // namespace

constexpr placement_strategy last_value(placement_strategy) {
  return placement_strategy::strict_spread;
}

constexpr proxy_location last_value(proxy_location) {
  return proxy_location::disabled;
}

} // namespace troupe::controller

namespace troupe::protocol {

template <>
struct layout<controller::replica_demand> {
  using r = controller::replica_demand;
  static constexpr std::string_view name = "replica_demand";
  static constexpr auto fields = std::tuple{
      number(1, &r::strategy),
      number(2, &r::engine),
      number(3, &r::replicas_per_node_max),
      number(4, &r::nodes_max),
      number(5, &r::ranks),
  };
};

template <>
struct layout<controller::model_deployment> {
  using r = controller::model_deployment;
  static constexpr std::string_view name = "model_deployment";
  static constexpr auto fields = std::tuple{
      number(1, &r::spec),
      number(2, &r::route_prefix),
      number(3, &r::note),
      number(4, &r::replicas),
      number(9, &r::created),
      number(10, &r::demand),
      number(11, &r::max_queued_requests),
      number(12, &r::scaling),
      number(13, &r::external_scaler),
      number(20, &r::choice),
  };
};

template <>
struct layout<controller::stored_application> {
  using r = controller::stored_application;
  static constexpr std::string_view name = "stored_application";
  static constexpr auto fields = std::tuple{
      number(1, &r::name),
      number(2, &r::json),
  };
};

template <>
struct layout<controller::written_bundle> {
  using r = controller::written_bundle;
  static constexpr std::string_view name = "bundle";
  static constexpr auto fields = std::tuple{number(1, &r::amounts)};
};

template <>
struct layout<controller::written_model> {
  using r = controller::written_model;
  static constexpr std::string_view name = "model of a deployment";
  static constexpr auto fields = std::tuple{
      number(1, &r::model),
      number(2, &r::bundles),
  };
};

template <>
struct layout<controller::written_deployment> {
  using r = controller::written_deployment;
  static constexpr std::string_view name = "deployment";
  static constexpr auto fields = std::tuple{
      number(2, &r::models),          number(3, &r::applications),
      number(4, &r::rest_json),       number(5, &r::settings),
      number(6, &r::proxies),         number(7, &r::target_capacity),
      number(8, &r::capacity_rising),
  };
};

} // namespace troupe::protocol

namespace troupe::controller {

codec::bytes encode(const deployment& from) {
  written_deployment out;
  for (const auto& model : from.models) {
    auto& to = out.models.emplace_back();
    to.model = model;
    for (const auto& bundle : model.demand.bundles) {
      auto& amounts = to.bundles.emplace_back().amounts;
      for (const auto& [name, amount] : bundle)
        amounts.push_back({name, amount});
    }
  }
  out.applications = from.applications;
  out.rest_json = from.rest_json;
  out.settings = from.settings;
  out.proxies = from.proxies;
  out.target_capacity = from.target_capacity;
  out.capacity_rising = from.capacity_rising;
  return protocol::encode_record(out);
}

namespace {

result<model_deployment> read_model(written_model from) {
  auto out = std::move(from.model);
  if (out.replicas > replicas_max || from.bundles.size() > bundles_max)
    return error{errc::limit, "deployment: too many replicas or bundles of " +
                                  out.spec.model};
  for (const auto& bundle : from.bundles) {
    auto& amounts = out.demand.bundles.emplace_back();
    for (const auto& [name, amount] : bundle.amounts) {
      if (!std::isfinite(amount) || amount < 0)
        return error{errc::corrupt, "deployment: no valid amount of " + name};
      amounts[name] = amount;
    }
  }
  return out;
}

} // namespace

result<deployment> decode_deployment(codec::bytes_view from) {
  auto written = protocol::decode_record<written_deployment>(from);
  if (!written)
    return written.error();
  deployment out;
  for (auto& model : written->models) {
    auto read = read_model(std::move(model));
    if (!read)
      return read.error();
    out.models.push_back(std::move(*read));
  }
  out.applications = std::move(written->applications);
  out.rest_json = std::move(written->rest_json);
  out.settings = std::move(written->settings);
  out.proxies = written->proxies;
  out.target_capacity = written->target_capacity;
  out.capacity_rising = written->capacity_rising;
  return out;
}

void note_direction(const deployment& before, deployment& wanted) {
  const auto& was = before.target_capacity;
  const auto& now = wanted.target_capacity;
  auto was_there = [&](const stored_application& one) {
    return std::any_of(
        before.applications.begin(), before.applications.end(),
        [&](const auto& other) { return other.name == one.name; });
  };
  if (!now)
    wanted.capacity_rising = false;
  else if (!std::all_of(wanted.applications.begin(), wanted.applications.end(),
                        was_there))
    wanted.capacity_rising = true;
  else if (was == now)
    wanted.capacity_rising = before.capacity_rising;
  else
    wanted.capacity_rising = was && *was < *now;
}

deployment without(deployment from, const std::string& application) {
  std::erase_if(from.models, [&](const auto& model) {
    return model.spec.application == application;
  });
  std::erase_if(from.applications,
                [&](const auto& stored) { return stored.name == application; });
  return from;
}

namespace {

std::uint32_t milliseconds(double seconds) {
  return static_cast<std::uint32_t>(
      std::llround(std::clamp(seconds * 1000, 0.0, 4'294'967'295.0)));
}

protocol::replica_spec to_spec(const config::llm_config& model,
                               const std::string& application,
                               const config::troupe_options& own) {
  protocol::replica_spec spec;
  spec.application = application;
  spec.model = model.model_id;
  spec.model_source = model.model_source;
  spec.tokenizer_source = model.tokenizer_source;
  spec.max_model_len = model.engine.max_model_len;
  spec.max_num_seqs = model.engine.max_num_seqs;
  spec.max_num_batched_tokens = model.engine.max_num_batched_tokens;
  spec.block_size = model.engine.block_size;
  spec.kv_cache_bytes = model.engine.kv_cache_memory_bytes;
  spec.enable_prefix_caching = model.engine.enable_prefix_caching;
  spec.threads = static_cast<std::int32_t>(own.threads_per_replica);
  spec.chat_template = model.engine.chat_template;
  spec.memory_utilization = model.engine.memory_utilization;
  spec.quantization = model.engine.quantization;
  auto& kv = model.engine.kv_cache_dtype;
  (kv == "fp8_e4m3" ? spec.kv_cache_dtype : spec.float_kv_dtype) = kv;
  spec.dtype = model.engine.dtype;
  spec.load_format = model.engine.load_format;
  spec.task = model.engine.task;
  if (model.engine.seed)
    spec.seed = {*model.engine.seed};
  spec.generation_defaults = model.engine.generation_defaults;
  spec.trust_request_chat_template = model.engine.trust_request_chat_template;
  spec.default_chat_template_kwargs = model.engine.default_chat_template_kwargs;
  spec.tensor_parallel_size = model.engine.tensor_parallel_size;
  spec.environment = model.env_vars;
  const auto& bounds = model.deployment;
  // Ray's default of 10^9 means no bound; a replica then keeps its own.
  constexpr std::int64_t bounded_max = 65'536;
  if (bounds.max_ongoing_requests <= bounded_max)
    spec.max_ongoing_requests =
        static_cast<std::uint32_t>(bounds.max_ongoing_requests);
  spec.graceful_shutdown_timeout_ms =
      milliseconds(bounds.graceful_shutdown_timeout_s);
  spec.start_retries =
      static_cast<std::uint32_t>(bounds.max_constructor_retry_count.value_or(
          std::clamp<std::int64_t>(3 * bounds.replicas(), 3, 20)));
  spec.health_check_period_ms = milliseconds(bounds.health_check_period_s);
  spec.health_check_timeout_ms = milliseconds(bounds.health_check_timeout_s);
  spec.restarts_max = own.restarts_per_minute;
  spec.restart_pause_max_ms = milliseconds(own.restart_pause_max_s);
  spec.memory_bytes = bounds.memory_bytes;
  return spec;
}

bool wants_gpu(const config::llm_config& model) {
  auto has_gpu = [](const auto& bundle) {
    auto gpu = bundle.find("GPU");
    return gpu != bundle.end() && gpu->second > 0;
  };
  return model.device == config::device_wish::gpu ||
         model.deployment.num_gpus > 0 ||
         std::any_of(model.bundles.begin(), model.bundles.end(), has_gpu);
}

/// What the bundles are before amounts of nothing are left out: the replica's
/// own resources are part of the first, as Ray has it.
std::vector<amounts> merged_bundles(const config::llm_config& model) {
  auto out = model.bundles;
  if (out.empty())
    out.emplace_back();
  const auto& own = model.deployment;
  auto& first = out.front();
  add(first, own.resources);
  add(first, {{"CPU", own.num_cpus},
              {"GPU", own.num_gpus},
              {"memory", static_cast<double>(own.memory_bytes)}});
  return out;
}

/// Nodes that a replica with these bundles, one per rank, may span: ranks talk
/// to each other in the clear.
std::uint32_t nodes_for(const config::llm_config& model,
                        const replica_demand& demand,
                        const config::troupe_options& own) {
  const auto ranks = model.engine.tensor_parallel_size;
  const auto has_one_gpu = [](const auto& bundle) {
    return gpus_in(bundle) == 1;
  };
  const auto may =
      own.data_network_trusted && ranks > 1 && demand.bundles.size() == ranks &&
      (demand.engine == "cpu" ||
       std::all_of(demand.bundles.begin(), demand.bundles.end(), has_one_gpu));
  return may ? ranks : 1;
}

/// Each rank has its part of the memory, wherever it is.
void share_out_memory(const config::llm_config& model, replica_demand& demand) {
  const auto given = static_cast<double>(model.deployment.memory_bytes);
  demand.bundles.front()["memory"] -= given;
  for (auto& bundle : demand.bundles)
    bundle["memory"] += given / demand.nodes_max;
}

replica_demand to_demand(const config::llm_config& model, bool gpu,
                         const config::troupe_options& own) {
  replica_demand out;
  out.bundles = merged_bundles(model);
  out.strategy = strategy_named(model.placement_strategy);
  out.engine = gpu ? "cuda" : "cpu";
  out.replicas_per_node_max = static_cast<std::uint32_t>(
      model.deployment.max_replicas_per_node.value_or(0));
  if (gpu)
    out.ranks = std::max<std::uint32_t>(model.engine.tensor_parallel_size, 1);
  if (gpu && gpus_in(sum_of(out)) <= 0) {
    out.bundles.resize(std::max<std::size_t>(out.bundles.size(), out.ranks));
    for (std::uint32_t rank = 0; rank < out.ranks; ++rank)
      out.bundles[rank]["GPU"] = 1;
  }
  out.nodes_max = nodes_for(model, out, own);
  if (out.nodes_max > 1)
    share_out_memory(model, out);
  for (auto& bundle : out.bundles) {
    if (!gpu)
      bundle.erase("GPU");
    std::erase_if(bundle, [](const auto& entry) { return entry.second <= 0; });
    // A marker that only nodes with this accelerator have.
    if (bundle.contains("GPU") && !model.accelerator_type.empty())
      bundle["accelerator_type:" + model.accelerator_type] = 0.001;
  }
  return out;
}

protocol::choice_rule to_rule(const config::request_router_config& from) {
  using protocol::choice_policy;
  protocol::choice_rule out;
  for (auto [name, policy] :
       {std::pair{"round_robin", choice_policy::round_robin},
        {"session", choice_policy::session},
        {"prefix", choice_policy::prefix},
        {"kv_aware", choice_policy::kv_aware}})
    if (from.policy == name)
      out.policy = policy;
  out.match_rate_min = from.match_rate_threshold;
  out.imbalance_max = from.imbalanced_threshold.value_or(-1);
  return out;
}

model_deployment to_model(const config::llm_config& model,
                          const config::application& application,
                          const config::troupe_options& own, bool cpu_only,
                          std::uint64_t now) {
  model_deployment out;
  out.spec = to_spec(model, application.name, own);
  out.route_prefix = application.route_prefix;
  out.replicas = static_cast<std::uint32_t>(model.deployment.replicas());
  out.demand = to_demand(model, wants_gpu(model) && !cpu_only, own);
  out.spec.gpus = sum_of(out.demand)["GPU"];
  out.created = now;
  // Ray's -1 means no bound of its own; the router then has one.
  out.max_queued_requests = static_cast<std::uint32_t>(std::clamp<std::int64_t>(
      model.deployment.max_queued_requests, 0, 0xFFFF'FFFF));
  out.scaling = model.deployment.autoscaling;
  out.external_scaler = application.external_scaler;
  out.choice = to_rule(model.deployment.router);
  return out;
}

protocol::router_settings to_settings(const config::serve_config& from) {
  protocol::router_settings out;
  for (const auto& one : from.troupe.api_keys) {
    out.api_keys.push_back(one.key);
    out.tenants.push_back({one.name, one.key, one.weight, one.priority,
                           one.requests_per_minute, one.tokens_per_minute,
                           one.choices_per_replica});
  }
  out.root_path = from.http.root_path;
  out.requests_max = from.troupe.max_requests_in_flight;
  out.request_timeout_ms =
      milliseconds(from.http.request_timeout_s.value_or(0));
  out.keep_alive_ms = milliseconds(from.http.keep_alive_timeout_s);
  out.access_log = from.logging.enable_access_log;
  out.failover_exact = from.troupe.failover_exact;
  return out;
}

proxy_location proxies_named(const std::string& name) {
  if (name == "HeadOnly")
    return proxy_location::head_only;
  if (name == "Disabled")
    return proxy_location::disabled;
  return proxy_location::every_node;
}

} // namespace

deployment to_deployment(const config::serve_config& config, bool cpu_only,
                         std::uint64_t now) {
  deployment out;
  for (const auto& application : config.applications)
    for (const auto& model : application.models)
      out.models.push_back(
          to_model(model, application, config.troupe, cpu_only, now));
  out.settings = to_settings(config);
  out.proxies = proxies_named(config.proxy_location);
  out.target_capacity = config.target_capacity;
  return out;
}

} // namespace troupe::controller
