#pragma once

#include "config/autoscaling_config.hpp"
#include "config/diagnostics.hpp"

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Ray Serve LLM's YAML as typed values with Ray's names and defaults, where
/// Troupe's differ it says so. Every value here is honoured; what is not built
/// is refused when the file is read.
namespace troupe::config {

/// What a model wants to run on.
enum class device_wish : std::uint8_t {
  any, ///< nothing said: a GPU where there is one, else the CPU
  cpu, ///< accelerator_config.kind: cpu, or bundles without a GPU
  gpu, ///< accelerator_type, accelerator_config.kind: gpu, or a GPU in a bundle
};

/// What stands where a secret is not shown, and is refused as a value.
inline constexpr std::string_view hidden_value = "***";

/// Resources of one worker: CPU, GPU and custom ones, by name.
using bundle = std::map<std::string, double>;

/// How routers choose among a model's replicas (docs/routing.md).
struct request_router_config {
  /// "power_of_two", "round_robin", "session", "prefix" or "kv_aware".
  std::string policy = "power_of_two";
  double match_rate_threshold = 0.1; ///< prefix, kv_aware: of the prompt
  /// Of prefix, in choices; unset = no bound.
  std::optional<double> imbalanced_threshold;
};

struct deployment_config {
  std::optional<std::int64_t> num_replicas;
  std::optional<autoscaling_config> autoscaling;
  std::int64_t max_ongoing_requests = 1'000'000'000; ///< per replica
  std::int64_t max_queued_requests = -1; ///< -1 = the router's bound
  double health_check_period_s = 10;     ///< a replica that works must step so
                                         ///< often, three times over
  double health_check_timeout_s = 10;    ///< a process must be heard so often
  double graceful_shutdown_timeout_s = 20;
  /// Unset: three per replica, at most 20, as Ray has it.
  std::optional<std::int64_t> max_constructor_retry_count;
  std::optional<std::int64_t> max_replicas_per_node;
  double num_cpus = 0; ///< ray_actor_options.num_cpus; 0 = not counted
  double num_gpus = 0; ///< ray_actor_options.num_gpus
  std::uint64_t memory_bytes = 0; ///< ray_actor_options.memory; also the
                                  ///< process's own limit; 0 = none
  bundle resources;               ///< ray_actor_options.resources
  request_router_config router;

  std::int64_t replicas() const {
    if (num_replicas)
      return *num_replicas;
    return autoscaling ? autoscaling->start_replicas() : 1;
  }
};

/// engine_kwargs that the engine honours; 0 or empty = its own choice.
struct engine_kwargs {
  std::uint32_t max_model_len = 0;
  std::uint32_t max_num_seqs = 0;
  std::uint32_t max_num_batched_tokens = 0;
  std::uint32_t block_size = 0;
  std::uint64_t kv_cache_memory_bytes = 0;
  bool enable_prefix_caching = true;
  std::string chat_template; ///< Jinja source (a path in the file is read)
  position chat_template_at; ///< for later messages, as its path
  std::string chat_template_path;
  double memory_utilization = 0; ///< gpu_memory_utilization
  std::string quantization;
  std::string kv_cache_dtype; ///< "float16", "bfloat16", "fp8_e4m3"
  std::string dtype;          ///< "float16", "bfloat16", "float32"
  std::string load_format;    ///< "gguf", "safetensors"
  /// What the model has to give: "generate", "embed", "score", "pooling" (one
  /// of the last two).
  std::string task;
  std::optional<std::uint64_t> seed;
  bool generation_defaults = true; ///< generation_config: auto
  bool trust_request_chat_template = false;
  std::string default_chat_template_kwargs; ///< a JSON object; empty = none
  std::uint32_t tensor_parallel_size = 0;
};

struct llm_config {
  position where; ///< of the entry, for later messages
  std::string model_id;
  /// An absolute path, or what names a model elsewhere (docs/models.md).
  std::string model_source;
  std::string tokenizer_source; ///< likewise; empty = the model's own
  std::string accelerator_type; ///< "A10G"; empty = none given
  device_wish device = device_wish::any;
  std::vector<bundle> bundles; ///< empty = one worker, nothing counted
  std::string placement_strategy = "PACK";
  deployment_config deployment;
  engine_kwargs engine;
  std::vector<std::pair<std::string, std::string>> env_vars;
};

struct application {
  position where;
  std::string name;
  std::string route_prefix = "/";
  /// The numbers of its replicas are set from outside (docs/autoscaling.md).
  bool external_scaler = false;
  std::vector<llm_config> models;
};

struct http_options {
  std::string host = "127.0.0.1"; ///< Ray's YAML default is 0.0.0.0
  std::uint16_t port = 8000;
  std::string root_path;
  std::optional<double> request_timeout_s;
  double keep_alive_timeout_s = 60; ///< Ray's is 5
};

struct logging_config {
  bool json = false;
  std::string level = "INFO"; ///< DEBUG, INFO, WARNING, ERROR
  bool enable_access_log = true;
};

/// Priorities of requests go from minus to plus this; lower ones go first.
inline constexpr std::int32_t priority_max = 1000;

/// A key that clients may bear, and what it is good for.
struct api_key {
  std::string name; ///< unique; of one that was given none "key-3"
  std::string key;
  double weight = 1;         ///< of its share of what there is
  std::int32_t priority = 0; ///< the most urgent (lowest) it may ask for
  std::uint32_t requests_per_minute = 0; ///< 0 = no limit
  std::uint64_t tokens_per_minute = 0;   ///< 0 = no limit
  /// That a router has at one replica at once; 0 = no limit.
  std::uint32_t choices_per_replica = 0;

  bool operator==(const api_key&) const = default;
};

/// The top-level key `troupe:`, what Ray has no name for.
struct troupe_options {
  std::vector<api_key> api_keys;         ///< none = any key is taken
  std::uint32_t threads_per_replica = 0; ///< 0 = the node's cores, shared out
  std::uint32_t max_requests_in_flight = 1024; ///< past it: 503 at once
  bool failover_exact = false; ///< failover: exact | best_effort
  /// Ranks of a replica may talk to each other over the nodes' network, which
  /// they do in the clear (data_network: trusted).
  bool data_network_trusted = false;
  std::uint32_t restarts_per_minute = 5; ///< of one replica, then it has failed
  double restart_pause_max_s = 4;        ///< the longest pause before one
};

struct serve_config {
  std::string proxy_location = "EveryNode";
  http_options http;
  logging_config logging;
  troupe_options troupe;
  std::optional<double> target_capacity; ///< per cent of all replicas
  std::vector<application> applications;
};

/// A file as read: its values and all findings. With errors the values are not
/// to be used.
struct loaded_config {
  serve_config values;
  diagnostics findings;
};

/// A JSON document as YAML, for people. Errors (it is no JSON) give the text as
/// it is.
std::string to_yaml(const std::string& json);

/// What a document is read for.
enum class purpose : std::uint8_t {
  run,     ///< by this machine alone: model files must be here
  deploy,  ///< to a running cluster: model files that are not here are noted,
           ///< and so is what cannot change while it runs
  request, ///< the body of a request: see load_text
};

/// The same for a JSON document that is no file (the body of a request):
/// findings name `name`, paths of models in it must be absolute, and no other
/// files may be named. Whether models exist is for the nodes to say, so it is
/// not checked.
loaded_config load_text(const std::string& text, const std::string& name);

/// The document of `file` as one JSON object in Ray Serve's schema: what `load`
/// read, with the per-model files and the files of templates and keys that it
/// names put in place, and paths made absolute. `load_text` of it gives equal
/// values. Only for a file that `load` found without errors.
std::string to_json(const std::filesystem::path& file);

/// Reads a file and the per-model files that it names (relative to it), checks
/// everything in one pass and never throws.
loaded_config load(const std::filesystem::path& file, purpose = purpose::run);

} // namespace troupe::config
