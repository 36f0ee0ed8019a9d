#pragma once

#include "engine/codec/error.hpp"
#include "engine/ops/rank_meeting.hpp"
#include "engine/sampling/candidate.hpp"
#include "engine/sampling/sampling_params.hpp"
#include "engine/text/model_card.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

/// All that the outside includes of the engine. One thread steps it; the
/// outside reaches it through one inbox (submit, cancel) and one callback per
/// step.
namespace troupe::engine {

/// What to load and the bounds to run in. 0 = choose.
struct options {
  /// A .gguf file, a directory that holds one, or one with config.json and
  /// safetensors. For `fetch` also what names a model elsewhere
  /// (docs/models.md).
  std::filesystem::path model;
  /// A directory with tokenizer.json (and tokenizer_config.json,
  /// chat_template), or that file; empty = the model's own.
  std::filesystem::path tokenizer;
  std::uint32_t max_model_len = 0;  ///< 0 = what the model says
  std::uint32_t max_num_seqs = 256; ///< rows of running sequences in a step
  /// Rows of a step, prompt chunks and running sequences together: the bound on
  /// the gap between two tokens of a running stream.
  std::uint32_t max_num_batched_tokens = 512;
  std::uint32_t block_size = 16;    ///< positions per KV block
  std::uint64_t kv_cache_bytes = 0; ///< 0 = a share of the free memory
  /// The share of the free memory that weights, KV cache and activations may
  /// take together, (0, 1]; 0 = a quarter of it for the KV cache. On a GPU: of
  /// its memory (gpu_share), 0 = 0.9. Means nothing beside kv_cache_bytes.
  double memory_utilization = 0;
  /// "q8_0", "q4_0": matrices of floats are quantised when they are loaded
  /// (weights/converted_checkpoint.hpp). "gguf", "awq", "gptq",
  /// "compressed-tensors": what the model has to be. "fp8": that is what it is,
  /// or, on a GPU, what its matrices of floats become (e4m3, a scale per
  /// output), but for embeddings and what chooses tokens or experts. Empty = as
  /// it is, which on a GPU is fp8 too (model_files.cpp).
  std::string quantization;
  /// What keys and values are kept as. "fp8_e4m3": on a GPU alone. "bfloat16":
  /// on a CPU alone, where attention then multiplies bf16. "float16". Empty:
  /// bfloat16 on a CPU where what makes them is in it, else float16.
  std::string kv_cache_dtype;
  /// "float16", "bfloat16": matrices of floats are rounded to it unless they
  /// are quantised. "float32", empty: they stay as stored, which is exact.
  std::string dtype;
  std::string load_format; ///< "gguf", "safetensors"; empty = either
  /// What the model has to give: "generate" (text), "embed", "score" or
  /// "pooling" (one of the last two); empty = whatever it does.
  std::string task;
  /// The seed that `sampling_defaults` has; unset = none.
  std::optional<std::uint64_t> seed;
  /// The model's own sampling parameters count (generation_config.json).
  bool generation_defaults = true;
  bool enable_prefix_caching = true;
  /// "cpu", or "cuda": the first GPU that CUDA_VISIBLE_DEVICES leaves, or one
  /// for each rank.
  std::string device = "cpu";
  /// Of that GPU's memory, (0, 1]; 0 = all of it.
  double gpu_share = 0;
  /// 0 = the cores this process may use; of all ranks of the model.
  int threads = 0;
  std::string chat_template; ///< overrides the model's own; empty = keep
  bool trust_request_template = false; ///< model_card has what these mean
  std::string template_kwargs;
  /// Sequences that may wait beside max_num_seqs running ones; one more is
  /// refused (errc::limit).
  std::uint32_t max_waiting = 4096;
  /// Ranks that hold the model together; 0 = 1. On CPUs each is a process of
  /// its own, on GPUs those of a machine are threads of one.
  std::uint32_t tensor_parallel_size = 0;
  /// The first of the ranks that are this process. That of rank 0 is loaded,
  /// the others call `serve_ranks`.
  std::uint32_t rank = 0;
  /// How many of all ranks are on this machine; 0 = all.
  std::uint32_t ranks_here = 0;
  /// Where this one listens for the others; numeric.
  std::string rank_address = "127.0.0.1";
  /// Where processes find each other, if there are several.
  std::shared_ptr<ops::rank_meeting> meeting = nullptr;
  /// For `fetch`: variables that count before the process's own.
  std::vector<std::pair<std::string, std::string>> environment;
};

/// Called while fetching, on the caller's thread: what is done, for people, and
/// bytes done and in all.
using fetch_progress = std::function<void(
    const std::string& doing, std::uint64_t done, std::uint64_t total)>;

struct fetched_options {
  options with;                   ///< paths of this machine
  std::vector<std::string> notes; ///< what the user should know
};

/// Where `fetch` may look.
enum class fetch_from : std::uint8_t { anywhere, caches_alone };

/// Brings a model and a tokenizer that are elsewhere (a hub, a bucket) into the
/// caches that others use too, unless they are there, and puts their paths in
/// the place of what named them. Paths stay as they are. How, and which
/// variables count: docs/models.md.
result<fetched_options> fetch(options, const fetch_progress&,
                              fetch_from = fetch_from::anywhere);

/// Called while loading: bytes of weights done and in all.
using load_progress =
    std::function<void(std::uint64_t done, std::uint64_t total)>;

/// Who waits for a choice; means nothing to the engine but to its step watch.
struct owner {
  std::uint64_t router = 0; ///< incarnation
  std::uint64_t record = 0; ///< request_record::id

  bool operator==(const owner&) const = default;
};

/// Hears, on the engine's thread, what a step is about to compute, so that it
/// is known if the step ends the process. Must be quick.
class step_watch {
public:
  virtual ~step_watch() = default;

  /// The owners of all choices with rows in the step that begins.
  virtual void begin(std::span<const owner> of) = 0;

  /// The step is over.
  virtual void end() = 0;
};

/// One choice to generate. `id` is the caller's and unique while it lives.
struct request {
  std::uint64_t id = 0;
  std::vector<token_id> prompt;
  /// Output that the choice already has (it moved here from another replica, or
  /// was preempted): recomputed as rows, never decoded again, not reported
  /// again.
  std::vector<token_id> resume;
  sampling_params params;
  owner whose;
  /// Where the second of two texts begins in the prompt; 0: there is one text.
  std::uint32_t second_text = 0;
  /// Until so many more tokens are drawn it is computed in steps of its own,
  /// which take turns with the steps of all others.
  std::uint32_t alone = 0;
};

using troupe::candidate;

enum class finish_reason : std::uint8_t {
  none,
  stop,      ///< EOS or one of stop_token_ids; the token is the last reported
  length,    ///< max_tokens or max_model_len
  cancelled, ///< by cancel()
  error,     ///< see `message`
};

/// What one step did for one choice.
struct output {
  std::uint64_t id = 0;
  std::vector<token_id> tokens; ///< new ids, in order; often one
  /// One per token if asked for: first the chosen one, then the best `logprobs`
  /// in descending order (ties: lowest id first).
  std::vector<std::vector<candidate>> logprobs;
  /// With the first output, if asked for and nothing is resumed: per prompt
  /// position (the first has none) the prompt's own token, then the best.
  std::vector<std::vector<candidate>> prompt_logprobs;
  /// What a model gives that draws no tokens (model_card::pooled): its only
  /// output, with finish stop.
  std::vector<float> vector;
  std::uint32_t cached_tokens = 0; ///< with the first output: prompt tokens
                                   ///< that the prefix cache held
  finish_reason finish = finish_reason::none;
  token_id stop_token = -1;   ///< with finish == stop: which one
  errc code = errc::internal; ///< with finish == error
  std::string message;        ///< with finish == error
};

/// Counters since the start and gauges of now; plain values, cheap to copy.
struct stats {
  std::uint64_t steps = 0; ///< forward passes
  /// Of these, those that were submitted before the one before was collected.
  std::uint64_t steps_ahead = 0;
  /// Between steps on a GPU, by its clock: how many, and the time of all. Times
  /// without work are among them.
  std::uint64_t device_gaps = 0;
  double device_gap_seconds = 0;
  std::uint64_t prompt_tokens = 0;  ///< prompt rows computed, also once more
  std::uint64_t resumed_tokens = 0; ///< output rows recomputed, not decoded
  std::uint64_t output_tokens = 0;  ///< tokens drawn
  std::uint64_t prefix_queries = 0; ///< prompt tokens looked up
  std::uint64_t prefix_hits = 0;    ///< prompt tokens found
  std::uint64_t preemptions = 0;
  std::uint64_t finished = 0;
  /// Weight blocks read by matrix products, in bytes: steps x model size says
  /// that each block is read once per step.
  std::uint64_t weight_bytes_read = 0;
  std::uint32_t longest_step_ms = 0; ///< but for the first step
  std::uint32_t running = 0;
  std::uint32_t waiting = 0;
  std::uint64_t waiting_tokens = 0; ///< prompt tokens still to compute
  std::uint64_t answer_tokens = 0;  ///< that its sequences may still draw
  /// Rows computed in a second of steps, over the last seconds of them.
  double tokens_per_second = 0;
  /// Microseconds that a step of 4 rows takes, and one of 256, by the last
  /// seconds of steps; 0 = not known now (step_fit.hpp).
  std::uint32_t few_rows_us = 0;
  std::uint32_t many_rows_us = 0;
  /// Sequences that it runs at once without giving one up: max_num_seqs, or as
  /// many as have KV blocks for half of the model's length.
  std::uint32_t seats = 0;
  std::uint32_t kv_blocks_total = 0;
  std::uint32_t kv_blocks_free = 0; ///< unused or reclaimable
};

/// Blocks of the prefix cache that came and went, by codec::chain_name.
struct block_changes {
  std::uint32_t block_size = 0; ///< tokens
  std::vector<std::uint64_t> stored;
  std::vector<std::uint64_t> dropped; ///< none of them is in `stored`
};

/// What one step gave; `now` is the state after it.
struct step_result {
  std::vector<output> outputs;
  stats now;
  block_changes blocks = {};
  /// Why the engine cannot go on: another rank is gone. No step follows, and
  /// the choices that it has get nothing any more. Empty = it can.
  std::string failed = {};
};

/// What the loaded engine is, for the routing table.
struct description {
  /// Hash of weights, quantisation, kernel contract and KV type: replicas of
  /// equal class give equal bits (DESIGN.md, "Exactness"). 16 hex digits.
  std::string arithmetic_class;
  std::string device; ///< "cpu: avx512-vnni, 2 threads"
  std::uint64_t weight_bytes = 0;
  std::uint64_t kv_cache_bytes = 0;
  std::uint32_t kv_blocks = 0;
  std::uint32_t max_num_seqs = 0;
};

/// What an engine with these options takes of the memory of the machine or its
/// GPUs, all ranks together.
struct memory_use {
  std::uint64_t weight_bytes = 0;
  std::uint64_t kv_cache_bytes = 0;
  std::uint64_t kv_block_bytes = 0;
  std::uint64_t workspace_bytes = 0; ///< activations and logits of one step
  /// Kept free for NCCL, which takes its memory itself; nobody has measured it.
  std::uint64_t library_bytes = 0;
  std::uint32_t kv_blocks = 0;
  std::uint32_t block_size = 0;    ///< positions per KV block
  std::uint32_t max_model_len = 0; ///< of one choice

  std::uint64_t kv_tokens() const {
    return std::uint64_t{kv_blocks} * block_size;
  }
  std::uint64_t bytes() const {
    return weight_bytes + kv_cache_bytes + workspace_bytes + library_bytes;
  }
};

/// What `engine::load` would take with `available_bytes` free (on GPUs: of
/// each), from the model's header: by the code that allocates, but without the
/// weights' contents and without their memory. Errors: as `engine::load`.
result<memory_use> measure(const options&, std::uint64_t available_bytes);

/// Whether this build can load engines with device "cuda", if there is a GPU;
/// the error says what is lacking.
result<void> find_gpu_engine();

/// The ranks of a process without rank 0: on CPUs one, on GPUs one for each
/// that the machine has. They meet the others, load their parts, compute them
/// in each step, and it returns when rank 0's engine is destroyed. Errors: what
/// keeps one from loading, or a rank that is gone; cancelled: rank 0 says it
/// too.
result<void> serve_ranks(const options&, const load_progress&);

class engine {
public:
  /// Loads the model; on failure the error names file and reason. What is
  /// invalid_argument or unsupported is so whenever it is tried with the same
  /// options and files; all else may end otherwise.
  static result<std::unique_ptr<engine>> load(const options&,
                                              const load_progress&);

  /// Stops the thread; outstanding choices end as cancelled without a callback.
  virtual ~engine() = default;

  virtual const text::model_card& card() const = 0;
  virtual const description& about() const = 0;

  /// Starts the engine's thread. `on_step` runs on it after every step and
  /// after refusals and cancellations; it must be quick and must not call back.
  /// `watch` (none if null) outlives the engine.
  virtual void start(std::function<void(step_result&&)> on_step,
                     step_watch* watch = nullptr) = 0;

  /// Puts a choice in the inbox. What is wrong with it (ids outside the
  /// vocabulary, too long, inbox full) is reported as an output with finish
  /// error. Any thread.
  virtual void submit(request) = 0;

  /// Ends a choice before the next step; its blocks are free again then. An id
  /// that is not known is ignored. Any thread.
  virtual void cancel(std::uint64_t id) = 0;

  /// Any thread.
  virtual stats now() const = 0;
};

} // namespace troupe::engine
