#pragma once

#include "actors/protocol/routing_table.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace troupe::protocol {

/// All that a replica process needs to start: written to it by its node agent
/// over the held pipe, never on a command line (secrets).
struct replica_spec {
  std::string replica; ///< "smollm2#1"
  std::string node;
  std::string application;
  std::string model; ///< public model id
  std::string model_source; ///< absolute path
  std::string tokenizer_source; ///< absolute path or empty
  std::uint32_t max_model_len = 0;
  std::uint32_t max_num_seqs = 0;
  std::uint32_t max_num_batched_tokens = 0;
  std::uint32_t block_size = 0;
  std::uint64_t kv_cache_bytes = 0;
  bool enable_prefix_caching = true;
  std::int32_t threads = 0;
  std::string chat_template;
  std::vector<std::pair<std::string, std::string>> environment;
  std::uint32_t max_ongoing_requests = 0;
  std::uint32_t graceful_shutdown_timeout_ms = 20'000;
  std::uint32_t start_retries = 20; ///< max_constructor_retry_count
  /// A replica with running choices whose engine makes no step for three of
  /// these is hung.
  std::uint32_t health_check_period_ms = 10'000;
  /// A process that is not heard for so long is lost.
  std::uint32_t health_check_timeout_ms = 10'000;

  bool operator==(const replica_spec&) const = default;
};

/// Phases of a replica, in this order; failed can follow any.
enum class replica_phase : std::uint8_t {
  starting, ///< process spawned, nothing heard yet
  loading,  ///< weights
  ready,
  draining,
  stopped, ///< ended as asked
  failed,  ///< ended otherwise; see `reason`
};

/// What runs in a replica now; liveness is `steps` moving while `running` > 0.
struct replica_load {
  std::uint64_t sequence = 0; ///< of this report; late ones are dropped
  std::uint64_t steps = 0;
  std::uint32_t running = 0;
  std::uint32_t waiting = 0;
  std::uint64_t waiting_tokens = 0;
  std::uint32_t kv_blocks_total = 0;
  std::uint32_t kv_blocks_free = 0;
  std::uint64_t prompt_tokens = 0;
  std::uint64_t output_tokens = 0;
  std::uint64_t prefix_queries = 0;
  std::uint64_t prefix_hits = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t weight_bytes_read = 0;

  bool operator==(const replica_load&) const = default;
};

/// Replica -> node agent (registration, progress, load) and node agent ->
/// controller (the same, and the end of the process).
struct replica_report {
  std::uint32_t version = protocol_version;
  std::string replica;
  std::uint64_t incarnation = 0;
  replica_phase phase = replica_phase::starting;
  std::uint64_t bytes_done = 0; ///< while loading
  std::uint64_t bytes_total = 0;
  std::uint32_t load_ms = 0; ///< once ready: time from start to ready
  endpoint where;            ///< once ready
  std::string arithmetic_class; ///< once ready
  std::string card_hash;        ///< once ready
  std::string device;           ///< once ready
  capabilities can;             ///< once ready
  replica_load load;
  std::int64_t pid = 0;
  std::uint32_t restarts = 0;
  bool budget_spent = false; ///< with failed: it will not be started again
  std::string reason;        ///< with failed: one sentence

  bool operator==(const replica_report&) const = default;
};

/// Node agent -> controller, at joining.
struct node_joined {
  std::string node; ///< "head"
  std::uint64_t incarnation = 0;
  std::uint32_t cpus = 0;
  std::uint64_t memory_bytes = 0;
  std::uint32_t gpus = 0;
  std::string accelerator_type; ///< of the GPUs; empty = none

  bool operator==(const node_joined&) const = default;
};

codec::bytes encode(const replica_spec&);
codec::bytes encode(const replica_load&);
codec::bytes encode(const replica_report&);
codec::bytes encode(const node_joined&);
result<replica_spec> decode_replica_spec(codec::bytes_view);
result<replica_load> decode_replica_load(codec::bytes_view);
result<replica_report> decode_replica_report(codec::bytes_view);
result<node_joined> decode_node_joined(codec::bytes_view);

} // namespace troupe::protocol
