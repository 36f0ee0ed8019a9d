#pragma once

#include "actors/protocol/gpu_room.hpp"
#include "actors/protocol/routing_table.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace troupe::protocol {

/// An amount of something that a node has or a replica takes: "CPU", "GPU",
/// "memory" (bytes), "accelerator_type:H200" or the user's own name.
struct resource {
  std::string name;
  double amount = 0;

  bool operator==(const resource&) const = default;
};

/// Ranks of a replica that a node has.
struct rank_share {
  std::string node;
  std::vector<std::uint32_t> bundles; ///< of the replica's, one per rank
  gpu_numbers gpus = {};              ///< of the node, one per rank, or none

  bool operator==(const rank_share&) const = default;
};

/// All that a replica process needs to start: written to it by its node agent
/// over the held pipe, never on a command line (secrets).
struct replica_spec {
  std::string replica; ///< "smollm2#1"
  std::string node;
  std::string application;
  std::string model; ///< public model id
  /// Absolute path, or what names a model elsewhere (docs/models.md).
  std::string model_source;
  std::string tokenizer_source; ///< likewise, or empty
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
  /// Restarts within a minute of a replica that had been ready; one more and it
  /// has failed.
  std::uint32_t restarts_max = 5;
  std::uint32_t restart_pause_max_ms = 4'000; ///< the longest pause before one
  /// The process's own memory limit (beside the mapped weights); past it the
  /// process aborts. 0 = none.
  std::uint64_t memory_bytes = 0;
  /// engine::options has what these mean.
  double memory_utilization = 0;
  std::string quantization;
  std::string dtype;
  std::string load_format;
  std::string task;
  std::vector<std::uint64_t> seed; ///< one or none
  bool generation_defaults = true;
  bool trust_request_chat_template = false;
  std::string default_chat_template_kwargs; ///< a JSON object, or empty
  /// Ranks that hold the model together; 0 = one. Since version 7.
  std::uint32_t tensor_parallel_size = 0;
  /// What it takes of them, a part of one or several; 0 = it runs on the CPU.
  /// Since version 7.
  double gpus = 0;
  /// Which of the node's GPUs this takes there: the head's choice
  /// (gpu_room.hpp). Since version 7.
  gpu_numbers gpus_here = {};
  /// engine::options has what it means: "fp8_e4m3". Since version 7.
  std::string kv_cache_dtype;
  /// The same, of "float16" and "bfloat16". A node that does not know it keeps
  /// float16. Since version 7.
  std::string float_kv_dtype = {};
  // A replica whose ranks are on several nodes (`data_network: trusted`), since
  // version 7; only nodes that know it are given such a one.
  /// Its nodes in the order of ranks, its own first. None = all ranks are here.
  std::vector<rank_share> ranks_on = {};
  /// 0 = the replica itself. Else the spec is of what another node, this one of
  /// `ranks_on`, has of it: a part, whose processes follow those of the
  /// replica.
  std::uint32_t part = 0;
  /// Of a part: the incarnation of the replica's start that it follows; 0 =
  /// there is none now.
  std::uint64_t leader = 0;

  bool operator==(const replica_spec&) const = default;
};

/// Some of a replica's ranks: so many, from this one on.
struct rank_range {
  std::uint32_t first = 0;
  std::uint32_t count = 1;
};

/// All of a replica's ranks, and those of the spec's node.
std::uint32_t ranks_of(const replica_spec&);
rank_range ranks_here(const replica_spec&);

/// Processes of a replica on all its nodes: its ranks; on GPUs one per node,
/// whose threads they are.
std::uint32_t processes_of(const replica_spec&);

/// Processes of the spec's node, each by the first of its ranks.
std::vector<std::uint32_t> processes_here(const replica_spec&);

/// The id of a replica's part, and the replica's of a part.
std::string part_id(const std::string& replica, std::uint32_t part);
std::string replica_of_part(const std::string& id);

/// True if a running replica of `a` can become one of `b` in place: they differ
/// at most in what no process has to be restarted for (max_ongoing_requests,
/// grace, retries, restarts and health checks).
bool same_process(const replica_spec& a, const replica_spec& b);

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
  std::uint64_t waiting_tokens = 0; ///< prompt tokens still to compute
  std::uint32_t kv_blocks_total = 0;
  std::uint32_t kv_blocks_free = 0;
  std::uint64_t prompt_tokens = 0;
  std::uint64_t output_tokens = 0;
  std::uint64_t prefix_queries = 0;
  std::uint64_t prefix_hits = 0;
  std::uint64_t preemptions = 0;
  std::uint64_t weight_bytes_read = 0;
  std::uint64_t resumed_tokens = 0; ///< output rows recomputed, not decoded
  std::uint32_t longest_step_ms =
      0; ///< since the start, but for the first step
  // Since version 5.
  std::uint64_t answer_tokens = 0;     ///< that its choices may still get
  std::uint32_t tokens_per_second = 0; ///< that it reaches while it works
  std::uint32_t seats = 0;             ///< choices that it runs well at once
  std::uint64_t finished = 0;          ///< choices

  bool operator==(const replica_load&) const = default;
};

/// What is used of a GPU, by whomever.
struct gpu_use {
  std::string gpu; ///< as CUDA_VISIBLE_DEVICES names it
  std::uint64_t memory_used = 0;
  std::uint64_t memory_total = 0;
  std::int32_t busy_percent = -1; ///< of the time, of late; -1 = not known
  std::string node = {}; ///< that has it; empty = the one whose report this is

  bool operator==(const gpu_use&) const = default;
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
  std::uint32_t load_ms = 0;    ///< once ready: time from start to ready
  endpoint where;               ///< once ready
  std::string arithmetic_class; ///< once ready
  std::string card_hash;        ///< once ready
  std::string device;           ///< once ready
  capabilities can;             ///< once ready
  replica_load load;
  std::int64_t pid = 0;
  std::uint32_t restarts = 0;
  /// With failed: it will not be started again. By the replica's own word, to
  /// its node agent: another start would fail as well.
  bool budget_spent = false;
  /// With failed: why, one sentence. With loading: what is done before the
  /// weights are read ("fetching org/name: model.gguf"), or nothing.
  std::string reason;
  std::string node; ///< filled in by the node agent
  /// Once ready: choices that it computes at once; 0 = as many as there are.
  /// Since version 6.
  std::uint32_t choices_at_once = 0;
  /// Its own; filled in by the node agent. In the cluster's status also those
  /// of its parts on other nodes. Since version 7.
  std::vector<gpu_use> gpus = {};

  bool operator==(const replica_report&) const = default;
};

/// A replica that a node has when it registers.
struct running_replica {
  replica_spec spec;
  replica_report report;

  bool operator==(const running_replica&) const = default;
};

/// Node agent -> controller, at joining and at every joining again.
struct node_joined {
  std::uint32_t version = protocol_version;
  std::string node;              ///< "head", a host's name, ...
  std::uint64_t incarnation = 0; ///< of the agent's life
  std::string address;           ///< where its replicas listen; numeric
  std::uint16_t http_port = 0;   ///< of its router; 0 = has none now
  std::uint32_t cpus = 0;        ///< cores that replicas may use
  std::uint64_t memory_bytes = 0;
  std::uint32_t gpus = 0;
  std::string accelerator_type;     ///< of the GPUs; empty = none
  std::vector<std::string> engines; ///< that its build has: "cpu", "cuda"
  std::vector<resource> resources; ///< for placement, CPU, GPU, memory included
  std::vector<std::pair<std::string, std::string>> labels;
  std::uint64_t head_epoch = 0; ///< of the last head that it obeyed; 0 = none
  std::vector<running_replica> replicas; ///< that it has
  /// Rises with each registration of a life, so that one that comes late, over
  /// an older connection, is known as such. 0 = not told; since version 7.
  std::uint64_t attempt = 0;

  bool operator==(const node_joined&) const = default;
};

/// Controller -> node agent, in answer to node_joined. From then on both put
/// the epochs on what they say; what bears others is dropped.
struct node_welcome {
  bool accepted = false;
  std::string reason; ///< of a refusal, one sentence
  std::uint64_t head_epoch = 0;
  std::uint64_t node_epoch = 0; ///< of this joining; never given twice
  /// The head's, since version 5: it takes routers' load.
  std::uint32_t version = 0;

  bool operator==(const node_welcome&) const = default;
};

/// A node whose certificates were revoked: those of its name that the authority
/// issued before era `since` are void. Each revocation begins an era.
struct revocation {
  std::string node;
  std::uint32_t since = 0; ///< 1, 2, ...

  bool operator==(const revocation&) const = default;
};

/// Controller -> node agent: all that the node should run. It replaces the one
/// before; a replica that is not in it is drained and ended.
struct node_assignment {
  std::uint64_t head_epoch = 0;
  std::uint64_t node_epoch = 0;
  std::uint64_t sequence = 0; ///< within the node epoch; older ones are dropped
  std::vector<replica_spec> replicas;
  bool router = true; ///< the node's router should listen (proxy_location)
  std::vector<revocation> revoked = {}; ///< all there are; since version 3

  bool operator==(const node_assignment&) const = default;
};

/// Node agent -> controller: news of one replica.
struct replica_news {
  std::string node;
  std::uint64_t node_epoch = 0;
  replica_report report;
  bool leaving = false; ///< the node ends all that it has, by itself

  bool operator==(const replica_news&) const = default;
};

/// Node agent -> controller -> every router: the process of a replica ended,
/// and what it was doing. Lets routers tell a request that ends replicas from
/// one that was there by chance.
struct death_notice {
  std::string node;
  std::uint64_t node_epoch = 0;
  std::string replica;
  std::uint64_t incarnation = 0; ///< the replica's
  /// By its own fault: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT (also by its
  /// own memory limit). What others did to it (SIGKILL, ...) is nobody's.
  bool own_fault = false;
  /// With own_fault: the choices of the step that was running, as (router
  /// incarnation, request_record::id).
  std::vector<std::pair<std::uint64_t, std::uint64_t>> running;
  std::string reason; ///< "killed by SIGSEGV"

  bool operator==(const death_notice&) const = default;
};

/// Node agent -> controller -> the other nodes that have ranks of the replica:
/// what a rank leaves for the others (node_agent/rank_meetings.hpp). Since
/// version 7.
struct rank_word {
  std::string node; ///< that sends it
  std::uint64_t node_epoch = 0;
  std::string replica;      ///< its id, not a part's
  std::uint64_t leader = 0; ///< incarnation of its start
  std::string key;          ///< empty: ranks there have ended
  std::string word;         ///< or why they have
  /// They have, and by their own fault (`death_notice::own_fault`).
  bool own_fault = false;

  /// A key for what no rank says: a node whose ranks have just come, or that
  /// has been out of reach, wants to hear all words again.
  static constexpr const char* once_more = "?";

  bool operator==(const rank_word&) const = default;
};

codec::bytes encode(const rank_word&);
result<rank_word> decode_rank_word(codec::bytes_view);
codec::bytes encode(const replica_spec&);
codec::bytes encode(const replica_load&);
codec::bytes encode(const replica_report&);
codec::bytes encode(const node_joined&,
                    std::uint32_t version = protocol_version);
codec::bytes encode(const node_welcome&,
                    std::uint32_t version = protocol_version);
codec::bytes encode(const node_assignment&,
                    std::uint32_t version = protocol_version);
codec::bytes encode(const replica_news&,
                    std::uint32_t version = protocol_version);
codec::bytes encode(const death_notice&);
result<replica_spec> decode_replica_spec(codec::bytes_view);
result<replica_load> decode_replica_load(codec::bytes_view);
result<replica_report> decode_replica_report(codec::bytes_view);
result<node_joined> decode_node_joined(codec::bytes_view);
result<node_welcome> decode_node_welcome(codec::bytes_view);
result<node_assignment>
decode_node_assignment(codec::bytes_view,
                       std::uint32_t version = protocol_version);
result<replica_news> decode_replica_news(codec::bytes_view);
result<death_notice> decode_death_notice(codec::bytes_view);

} // namespace troupe::protocol
