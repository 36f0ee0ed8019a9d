#include "engine/engine.hpp"

#include "engine/engine_thread.hpp"
#include "engine/environment.hpp"
#include "engine/memory_plan.hpp"
#include "engine/model/decoder.hpp"
#include "engine/model/encoder.hpp"
#include "engine/model/rank_runner.hpp"
#include "engine/model_files.hpp"
#include "engine/ops/cpu/cpu_backend.hpp"
#include "engine/ops/cpu/sizing_backend.hpp"
#include "engine/ops/cuda_module.hpp"
#include "engine/ops/dense_layout.hpp"
#include "engine/ops/gloo/gloo_communicator.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <thread>

namespace troupe::engine {

namespace {

/// Prompt rows whose logits may be wanted in one step: a bound on memory.
constexpr std::uint32_t max_scored_rows = 64;

int threads_of_machine() {
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

/// Everything that decides the bits of a position, in 16 hex digits.
std::string arithmetic_class_of(const std::string& content_hash,
                                const std::string& arithmetic) {
  const std::string whole = content_hash + "/" + arithmetic;
  const auto key = kv_cache::siphash({}, std::as_bytes(std::span{whole}));
  return fmt::format("{:016x}", key.low);
}

scheduler::bounds bounds_of(const options& o) {
  return {.max_num_seqs = o.max_num_seqs,
          .max_num_batched_tokens = o.max_num_batched_tokens,
          .max_scored_rows = max_scored_rows,
          .block_size = o.block_size};
}

/// `longest`: tokens of a choice; 0: as many as the blocks have room for.
model::decoder_limits limits_of(const scheduler::bounds& bounds,
                                std::uint32_t kv_blocks,
                                std::uint32_t longest = 0) {
  const std::uint32_t logit_rows =
      std::min(bounds.max_num_batched_tokens,
               bounds.max_num_seqs + bounds.max_scored_rows);
  return {.rows_max = static_cast<int>(bounds.max_num_batched_tokens),
          .logit_rows_max = static_cast<int>(logit_rows),
          .kv_block_tokens = static_cast<int>(bounds.block_size),
          .kv_blocks = static_cast<int>(kv_blocks),
          .sequences_max = static_cast<int>(bounds.max_num_seqs),
          .positions_max = static_cast<int>(longest)};
}

/// A model and what its header says.
struct opened_model {
  model_files files;
  model::model_config config;
};

result<opened_model> open_model(const options& o) {
  auto files = open_files(o);
  if (!files)
    return files.error();
  auto config = model::read_model_config(*files->checkpoint,
                                         static_cast<int>(o.max_model_len));
  if (!config)
    return config.error();
  if (o.kv_cache_dtype == "float16")
    config->bf16_attention = false;
  if (o.kv_cache_dtype == "bfloat16")
    config->bf16_attention = true;
  return opened_model{std::move(*files), std::move(*config)};
}

/// Tokens of the longest text to be pooled: what is asked for, else what it can
/// do.
result<std::uint32_t> longest_text(const options& o,
                                   const opened_model& model) {
  const auto most = static_cast<std::uint32_t>(model.config.context_length);
  if (o.max_model_len > most)
    return error{errc::invalid_argument,
                 fmt::format("{}: max_model_len: {} is more than the model's "
                             "{}",
                             model.files.checkpoint->name(), o.max_model_len,
                             most)};
  return o.max_model_len > 0 ? o.max_model_len : most;
}

/// A text is never divided, so a step has room for the longest one.
model::encoder_limits pooling_limits_of(const options& o,
                                        std::uint32_t longest) {
  const auto rows = std::max(o.max_num_batched_tokens, longest);
  return {.rows_max = static_cast<std::int32_t>(rows),
          .sequences_max =
              static_cast<std::int32_t>(std::min(o.max_num_seqs, rows))};
}

bool on_gpu(const options& o) {
  return o.device == "cuda";
}

std::int32_t ranks_of(const options& o) {
  return static_cast<std::int32_t>(
      std::max<std::uint32_t>(o.tensor_parallel_size, 1));
}

/// On this machine.
std::int32_t ranks_here(const options& o) {
  return o.ranks_here > 0 ? static_cast<std::int32_t>(o.ranks_here)
                          : ranks_of(o);
}

/// Of one rank; 0 = the backend's own choice.
int threads_of(const options& o) {
  if (ranks_of(o) == 1)
    return o.threads;
  return std::max(1, o.threads > 0 ? o.threads / ranks_of(o)
                                   : threads_of_machine() / ranks_here(o));
}

/// A rank's, to size what it takes; null if there is only one.
std::unique_ptr<ops::communicator> sizing_ranks_of(const options& o) {
  return ranks_of(o) == 1
             ? nullptr
             : ops::make_sizing_communicator(ranks_of(o), on_gpu(o));
}

ops::kv_type kv_type_of(const options& o) {
  return o.kv_cache_dtype == "fp8_e4m3" ? ops::kv_type::e4m3
                                        : ops::kv_type::f16;
}

std::unique_ptr<ops::backend> sizing_backend_of(const options& o) {
  using ops::cpu::kept_by;
  return ops::cpu::make_sizing_backend(on_gpu(o) ? kept_by::gpu : kept_by::cpu,
                                       kv_type_of(o));
}

/// What a decoder's steps take: of the device, where that is the host too.
std::uint64_t workspace_of(const options& o, const model::decoder_bytes& size) {
  return size.workspace + (on_gpu(o) ? 0 : size.host);
}

/// What else a GPU's memory is for is little: contexts, and what is not ours.
double utilization_of(const options& o) {
  constexpr double usual = 0.9;
  return on_gpu(o) && o.memory_utilization <= 0 ? usual : o.memory_utilization;
}

/// Of the backend itself.
std::uint64_t backend_bytes(const options& o) {
  return on_gpu(o) ? ops::gpu_workspace_bytes : 0;
}

/// Of a GPU's memory, for the library by which ranks talk. An engine that loads
/// has connected it before it looks at what is free.
std::uint64_t library_bytes(const options& o) {
  return on_gpu(o) && ranks_of(o) > 1
             ? ops::gpu_rank_layout::library_bytes(ranks_of(o))
             : 0;
}

/// Bytes of all that is not the KV cache, at most: a store that has room for
/// the longest choice that may be asked for.
result<std::uint64_t> other_bytes(const options& o, const opened_model& model) {
  auto backend = sizing_backend_of(o);
  auto ranks = sizing_ranks_of(o);
  const auto longest =
      o.max_model_len > 0
          ? o.max_model_len
          : static_cast<std::uint32_t>(model.config.context_length);
  const auto blocks = (longest + o.block_size - 1) / o.block_size;
  auto size = model::decoder_size(
      *model.files.checkpoint, model.config, *backend,
      limits_of(bounds_of(o), blocks, longest), ranks.get());
  if (!size)
    return size.error();
  return size->weights + workspace_of(o, *size) + backend_bytes(o);
}

/// Ranks share a machine's memory, but each has a GPU's.
std::uint64_t of_one_rank(const options& o, std::uint64_t available_bytes) {
  return on_gpu(o)
             ? available_bytes
             : available_bytes / static_cast<std::uint64_t>(ranks_here(o));
}

/// Of one rank.
struct planned_memory {
  std::uint64_t block_bytes = 0;
  memory_plan plan;
};

result<planned_memory> plan_for(const options& o, const opened_model& model,
                                ops::backend& backend,
                                std::uint64_t available_bytes) {
  auto ranks = sizing_ranks_of(o);
  auto block_bytes = model::kv_block_bytes(
      model.config, backend, static_cast<int>(o.block_size), ranks.get());
  if (!block_bytes)
    return block_bytes.error();
  auto others = other_bytes(o, model);
  if (!others)
    return others.error();
  auto plan = plan_memory(
      {.block_bytes = *block_bytes,
       .block_size = o.block_size,
       .max_num_seqs = o.max_num_seqs,
       .max_model_len = static_cast<std::uint32_t>(model.config.context_length),
       .max_model_len_asked = o.max_model_len,
       .kv_cache_bytes_asked = o.kv_cache_bytes,
       .available_bytes = of_one_rank(o, available_bytes),
       .utilization_asked = utilization_of(o),
       .other_bytes = *others});
  if (!plan)
    return error{plan.error().code,
                 model.files.checkpoint->name() + ": " + plan.error().message};
  return planned_memory{*block_bytes, *plan};
}

/// Returns when all ranks are there. Of several that are threads of this
/// process, `group`, each connects; `rank_here` is its place among them.
result<std::unique_ptr<ops::communicator>>
connect_ranks(const options& o,
              std::shared_ptr<ops::thread_group> group = nullptr,
              std::uint32_t rank_here = 0) {
  if (!o.meeting)
    return error{errc::unsupported,
                 "tensor_parallel_size: above 1 in one process: the ranks are "
                 "processes that a node starts"};
  return ops::connect_ranks(
      {.rank = static_cast<std::int32_t>(o.rank + rank_here),
       .size = ranks_of(o),
       .address = o.rank_address,
       .group = std::move(group),
       .rank_here = static_cast<std::int32_t>(rank_here)},
      o.meeting);
}

/// Whether all ranks have loaded their part; an error names the first that has
/// not, and why.
template <class Loaded>
result<void> agree(ops::communicator& ranks, const result<Loaded>& own) {
  const auto said = ranks.tell_all(own ? "" : own.error().message);
  for (std::size_t rank = 0; rank < said.size(); ++rank)
    if (!said[rank].empty())
      return error{errc::unavailable,
                   fmt::format("rank {}: {}", rank, said[rank])};
  return {};
}

/// Opens a rank's GPU, or the only one; `group`, `rank_here` and `hosts` as in
/// ops::cuda_options.
result<ops::cuda_device> open_gpu_of(const options& o,
                                     std::shared_ptr<ops::thread_group> group,
                                     std::uint32_t rank_here,
                                     std::unique_ptr<ops::communicator> hosts) {
  const auto caches = cache_folder(o);
  return ops::open_cuda(
      {.number = static_cast<int>(rank_here),
       .cache_folder = caches.empty() ? caches : caches / "gpu",
       .group = std::move(group),
       .rank_here = static_cast<std::int32_t>(rank_here),
       .hosts = std::move(hosts),
       .kv = kv_type_of(o)});
}

/// Bytes that this rank may take of its GPU's memory: all take the same.
std::uint64_t least_budget(const options& o, const ops::cuda_device& device) {
  auto out = gpu_budget(device.all_bytes, device.free_bytes, o.gpu_share);
  if (device.ranks == nullptr)
    return out;
  for (const auto& said : device.ranks->tell_all(std::to_string(out)))
    out = std::min<std::uint64_t>(out, std::stoull(said));
  return out;
}

/// The same of a machine's memory, for all ranks there: of several machines
/// the one with the least for each rank decides.
std::uint64_t least_memory(const options& o, ops::communicator& ranks) {
  const auto here = static_cast<std::uint64_t>(ranks_here(o));
  auto out = available_memory_bytes() / here;
  for (const auto& said : ranks.tell_all(std::to_string(out)))
    out = std::min<std::uint64_t>(out, std::stoull(said));
  return out * here;
}

std::string content_of(const options& o, const weights::checkpoint& file) {
  return file.content_hash(o.threads > 0 ? o.threads : threads_of_machine());
}

bool on_several_machines(const options& o) {
  return ranks_here(o) != ranks_of(o);
}

/// Each machine has fetched the model for itself. Who says nothing has the
/// files of another rank of its process.
result<void> same_model(ops::communicator& ranks, const std::string& content) {
  const auto said = ranks.tell_all(content);
  for (std::size_t rank = 0; rank < said.size(); ++rank)
    if (!said[rank].empty() && said[rank] != said.front())
      return error{errc::unavailable,
                   fmt::format("rank {} has another model than rank 0: its "
                               "files differ",
                               rank)};
  return {};
}

/// Rank 0's plan, that the others need.
struct shared_plan {
  std::uint32_t kv_blocks = 0;
  std::uint32_t max_model_len = 0;
};

/// Nothing, if rank 0 has none.
result<shared_plan> hear_plan(ops::communicator& ranks) {
  std::vector<std::byte> bytes;
  ranks.broadcast(bytes);
  shared_plan out;
  if (bytes.size() != sizeof out)
    return error{errc::cancelled, "rank 0 could not load its part"};
  std::memcpy(&out, bytes.data(), sizeof out);
  return out;
}

/// What a rank but the first has of the model.
struct rank_part {
  opened_model source;
  std::unique_ptr<model::decoder> decoder;
};

result<rank_part> load_part(const options& o, const shared_plan& plan,
                            const result<ops::backend*>& backend,
                            ops::communicator& ranks,
                            const load_progress& progress) {
  if (!backend)
    return backend.error();
  rank_part out;
  auto source = open_model(o);
  if (!source)
    return source.error();
  out.source = std::move(*source);
  auto decoder = model::decoder::make(
      *out.source.files.checkpoint, out.source.config, **backend,
      limits_of(bounds_of(o), plan.kv_blocks, plan.max_model_len), progress,
      &ranks);
  if (!decoder)
    return decoder.error();
  out.decoder = std::move(*decoder);
  return out;
}

/// Rank 0 hears of what goes wrong, so it must be an error.
result<rank_part> try_to_load(const options& o, const shared_plan& plan,
                              const result<ops::backend*>& backend,
                              ops::communicator& ranks,
                              const load_progress& progress) {
  try {
    return load_part(o, plan, backend, ranks, progress);
  } catch (const std::bad_alloc&) {
    return error{errc::limit, "there is not enough memory for its part"};
  }
}

/// A rank but the first, once all are connected, until rank 0 has ended;
/// `rank_here`: its place among those of its process. Throws ops::rank_lost.
result<void> serve_part(const options& o, const result<ops::backend*>& backend,
                        ops::communicator& ranks, std::uint32_t rank_here,
                        const load_progress& progress) {
  auto plan = hear_plan(ranks);
  if (!plan)
    return plan.error();
  auto part = try_to_load(o, *plan, backend, ranks, progress);
  if (auto agreed = agree(ranks, part); !agreed)
    return error{errc::cancelled, agreed.error().message};
  ranks.tell_all((*backend)->arithmetic());
  if (on_several_machines(o))
    if (auto same = same_model(
            ranks, rank_here == 0
                       ? content_of(o, *part->source.files.checkpoint)
                       : "");
        !same)
      return same;
  return model::follow(*part->decoder, ranks);
}

/// The same on a GPU of its own, as one of the group's threads.
result<void> serve_on_gpu(const options& o,
                          std::shared_ptr<ops::thread_group> group,
                          std::uint32_t rank_here) {
  std::unique_ptr<ops::communicator> hosts;
  if (on_several_machines(o)) {
    auto connected = connect_ranks(o, group, rank_here);
    if (!connected)
      return connected.error();
    hosts = std::move(*connected);
  }
  auto device = open_gpu_of(o, group, rank_here, std::move(hosts));
  if (!device)
    return device.error();
  const auto rank = o.rank + rank_here;
  try {
    least_budget(o, *device);
    auto done =
        serve_part(o, device->backend.get(), *device->ranks, rank_here, {});
    if (!done) // said before the device is gone, which ends the group too
      group->end(fmt::format("rank {}: {}", rank, done.error().message));
    else if (rank_here > 0)
      group->wait_for_end(); // the first of them says when all is over
    return done;
  } catch (const std::exception& why) {
    group->end(fmt::format("rank {}: {}", rank, why.what()));
    throw;
  }
}

/// All ranks of a process without rank 0.
result<void> serve_on_gpus(const options& o) {
  auto group = std::make_shared<ops::thread_group>(ranks_here(o));
  const rank_threads others{group, [&o, group](std::uint32_t rank_here) {
                              return serve_on_gpu(o, group, rank_here);
                            }};
  try {
    auto done = serve_on_gpu(o, group, 0);
    if (!done)
      group->end(done.error().message);
    return done;
  } catch (const std::exception& why) {
    return error{errc::unavailable, why.what()};
  }
}

/// Loads a model step by step.
class loader {
public:
  loader(const options& o, const load_progress& progress)
      : options_(o), progress_(progress) {
  }

  result<loaded_model> run() {
    using step = result<void> (loader::*)();
    for (step one : {&loader::meet_ranks, &loader::open, &loader::make_backend,
                     &loader::make_card, &loader::plan, &loader::make_runner})
      if (auto done = (this->*one)(); !done) {
        if (ranks() != nullptr && !is_plan_shared_)
          give_up_plan();
        return done.error();
      }
    describe();
    return std::move(model_);
  }

private:
  ops::communicator* ranks() const {
    return model_.ranks.get();
  }

  result<void> meet_ranks() {
    if (ranks_of(options_) == 1)
      return {};
    if (on_gpu(options_))
      return start_ranks();
    auto ranks = connect_ranks(options_);
    if (!ranks)
      return ranks.error();
    model_.ranks = std::move(*ranks);
    ranks_bytes_ = least_memory(options_, *model_.ranks);
    return {};
  }

  /// They open their GPUs, and wait there for this one's.
  result<void> start_ranks() {
    auto group = std::make_shared<ops::thread_group>(ranks_here(options_));
    model_.others = std::make_unique<rank_threads>(
        group, [with = options_, group](std::uint32_t rank_here) {
          return serve_on_gpu(with, group, rank_here);
        });
    if (!on_several_machines(options_))
      return {};
    auto hosts = connect_ranks(options_, group, 0);
    if (!hosts)
      return hosts.error();
    hosts_ = std::move(*hosts);
    return {};
  }

  /// The others need not wait for it any more, if they are there.
  void give_up_plan() {
    try {
      share_plan({});
    } catch (const ops::rank_lost&) {
      // Why there is no plan is what counts.
    }
  }

  /// To the other ranks, which wait for it; nothing = there is none.
  void share_plan(std::optional<shared_plan> plan) {
    is_plan_shared_ = true;
    std::vector<std::byte> bytes(plan ? sizeof *plan : 0);
    if (plan)
      std::memcpy(bytes.data(), &*plan, sizeof *plan);
    ranks()->broadcast(bytes);
  }

  result<void> open() {
    auto opened = open_model(options_);
    if (!opened)
      return opened.error();
    source_ = std::move(*opened);
    return {};
  }

  result<void> make_backend() {
    if (options_.device != "cpu" && !on_gpu(options_))
      return error{errc::invalid_argument, "device: \"" + options_.device +
                                               "\" is neither cpu nor "
                                               "cuda"};
    if (on_gpu(options_))
      return open_gpu();
    auto backend =
        ops::cpu::make_backend({.threads = threads_of(options_), .isa = {}});
    if (!backend)
      return backend.error();
    model_.backend = std::move(*backend);
    return {};
  }

  result<void> open_gpu() {
    // Of a launch of kernels (cuda/device_backend.hpp).
    constexpr std::uint32_t rows_max = 32'768;
    if (options_.max_num_batched_tokens > rows_max)
      return error{errc::unsupported,
                   fmt::format("max_num_batched_tokens: {} rows of a step are "
                               "more than the {} of a GPU",
                               options_.max_num_batched_tokens, rows_max)};
    auto device =
        open_gpu_of(options_, model_.others ? model_.others->group() : nullptr,
                    0, std::move(hosts_));
    if (!device)
      return device.error();
    gpu_bytes_ = least_budget(options_, *device);
    model_.backend = std::move(device->backend);
    model_.ranks = std::move(device->ranks);
    return {};
  }

  result<void> make_card() {
    auto card = read_card(options_, source_.files, source_.config);
    if (!card)
      return card.error();
    model_.card = std::move(*card);
    return {};
  }

  bool is_pooled() const {
    return source_.config.pooled;
  }

  result<void> plan() {
    return is_pooled() ? plan_pooled() : plan_decoder();
  }

  result<void> plan_pooled() {
    if (ranks() != nullptr) // says why not
      return model::config_of(source_.config, {0, ranks()->size()}).error();
    auto longest = longest_text(options_, source_);
    if (!longest)
      return longest.error();
    model_.card.max_model_len = *longest;
    model_.pooling = {.max_num_seqs = options_.max_num_seqs,
                      .max_num_batched_tokens = options_.max_num_batched_tokens,
                      .max_model_len = *longest,
                      .max_waiting = options_.max_waiting};
    return {};
  }

  result<void> plan_decoder() {
    auto planned = plan_for(options_, source_, *model_.backend,
                            on_gpu(options_)     ? gpu_bytes_
                            : ranks() != nullptr ? ranks_bytes_
                                                 : available_memory_bytes());
    if (!planned)
      return planned.error();
    const auto& plan = planned->plan;
    model_.card.max_model_len = plan.max_model_len;
    model_.config = {.bounds = bounds_of(options_),
                     .kv_blocks = plan.kv_blocks,
                     .max_model_len = plan.max_model_len,
                     .max_waiting = options_.max_waiting,
                     .enable_prefix_caching = options_.enable_prefix_caching,
                     .eos_ids = model_.card.eos_ids,
                     .secret = kv_cache::random_secret()};
    return {};
  }

  result<void> make_runner() {
    return is_pooled() ? make_pooler() : make_decoder();
  }

  result<void> make_pooler() {
    auto runner = model::encoder::make(
        *source_.files.checkpoint, source_.config, *model_.backend,
        pooling_limits_of(options_, model_.pooling.max_model_len), progress_);
    if (!runner)
      return runner.error();
    arithmetic_ = model_.backend->arithmetic();
    model_.about.weight_bytes = (*runner)->weight_bytes();
    model_.pooler = std::move(*runner);
    return {};
  }

  result<void> make_decoder() {
    if (ranks() != nullptr)
      share_plan(
          shared_plan{model_.config.kv_blocks, model_.config.max_model_len});
    auto runner = model::decoder::make(
        *source_.files.checkpoint, source_.config, *model_.backend,
        limits_of(model_.config.bounds, model_.config.kv_blocks,
                  model_.config.max_model_len),
        progress_, ranks());
    if (ranks() != nullptr)
      if (auto agreed = agree(*ranks(), runner); !agreed)
        return agreed.error();
    if (!runner)
      return runner.error();
    arithmetic_ = model_.backend->arithmetic();
    if (ranks() != nullptr)
      name_all(ranks()->tell_all(arithmetic_));
    if (ranks() != nullptr && on_several_machines(options_))
      if (auto same = same_model(*ranks(), content()); !same)
        return same;
    const auto parts = static_cast<std::uint64_t>(ranks_of(options_));
    model_.about.weight_bytes = (*runner)->weight_bytes() * parts;
    model_.about.kv_cache_bytes = (*runner)->kv_cache_bytes() * parts;
    if (ranks() == nullptr) {
      model_.runner = std::move(*runner);
    } else {
      model_.runner =
          std::make_unique<model::rank_runner>(std::move(*runner), *ranks());
    }
    return {};
  }

  /// Ranks that compute alike have one name; on GPUs they may choose otherwise
  /// how to multiply.
  void name_all(const std::vector<std::string>& arithmetics) {
    for (const auto& one : arithmetics)
      if (one != arithmetics.front()) {
        arithmetic_ = fmt::format("{}", fmt::join(arithmetics, ","));
        return;
      }
  }

  /// All of the files is read for it, once.
  const std::string& content() {
    if (content_.empty())
      content_ = content_of(options_, *source_.files.checkpoint);
    return content_;
  }

  void describe() {
    model_.about.arithmetic_class = arithmetic_class_of(
        content(),
        arithmetic_ + (source_.config.short_rope ? "/short-rope" : "") +
            (source_.config.bf16_attention && !on_gpu(options_)
                 ? "/bf16-attention"
                 : "") +
            (ranks() ? fmt::format("/{} ranks", ranks()->size()) : ""));
    model_.about.device =
        options_.device + ": " + model_.backend->description() +
        (ranks() ? fmt::format(", {} ranks", ranks()->size()) : "");
    model_.about.kv_blocks = model_.config.kv_blocks;
    model_.about.max_num_seqs = options_.max_num_seqs;
  }

  const options& options_;
  const load_progress& progress_;
  bool is_plan_shared_ = false;
  std::uint64_t gpu_bytes_ = 0;   // that may be taken
  std::uint64_t ranks_bytes_ = 0; // the same, by ranks of this machine
  std::string arithmetic_;        // of all ranks
  std::string content_;           // of the files; empty = not asked for yet
  opened_model source_;
  loaded_model model_;
  /// Of ranks on GPUs of several machines, until this one's is open.
  std::unique_ptr<ops::communicator> hosts_;
};

} // namespace

namespace {

result<memory_use> measure_pooled(const options& o,
                                  const opened_model& source) {
  if (auto part = model::config_of(source.config, {0, ranks_of(o)}); !part)
    return part.error();
  auto longest = longest_text(o, source);
  if (!longest)
    return longest.error();
  auto backend = sizing_backend_of(o);
  auto size = model::encoder_size(*source.files.checkpoint, source.config,
                                  *backend, pooling_limits_of(o, *longest));
  if (!size)
    return size.error();
  return memory_use{.weight_bytes = size->weights,
                    .workspace_bytes = size->workspace + backend_bytes(o),
                    .block_size = o.block_size,
                    .max_model_len = *longest};
}

/// A GPU, and ranks, fail by exceptions.
result<loaded_model> run_loader(const options& o,
                                const load_progress& progress) {
  if (!on_gpu(o) && ranks_of(o) == 1)
    return loader{o, progress}.run();
  try {
    return loader{o, progress}.run();
  } catch (const ops::rank_lost& why) {
    return error{errc::unavailable, why.what()};
  } catch (const std::bad_alloc&) {
    return error{errc::limit,
                 on_gpu(o) ? "the GPU has no room for the model beside what "
                             "else is there"
                           : "there is not enough memory for the model"};
  } catch (const std::exception& why) {
    return error{errc::unavailable, why.what()};
  }
}

} // namespace

result<memory_use> measure(const options& o, std::uint64_t available_bytes) {
  auto source = open_model(o);
  if (!source)
    return source.error();
  if (source->config.pooled)
    return measure_pooled(o, *source);
  auto backend = sizing_backend_of(o);
  const auto library = library_bytes(o);
  auto planned = plan_for(o, *source, *backend,
                          available_bytes - std::min(available_bytes, library));
  if (!planned)
    return planned.error();
  auto ranks = sizing_ranks_of(o);
  auto size =
      model::decoder_size(*source->files.checkpoint, source->config, *backend,
                          limits_of(bounds_of(o), planned->plan.kv_blocks,
                                    planned->plan.max_model_len),
                          ranks.get());
  if (!size)
    return size.error();
  const auto parts = static_cast<std::uint64_t>(ranks_of(o));
  return memory_use{.weight_bytes = size->weights * parts,
                    .kv_cache_bytes = size->kv_cache * parts,
                    .kv_block_bytes = planned->block_bytes * parts,
                    .workspace_bytes =
                        (workspace_of(o, *size) + backend_bytes(o)) * parts,
                    .library_bytes = library * parts,
                    .kv_blocks = planned->plan.kv_blocks,
                    .block_size = o.block_size,
                    .max_model_len = planned->plan.max_model_len};
}

result<void> find_gpu_engine() {
  return ops::find_cuda_module();
}

result<void> serve_ranks(const options& o, const load_progress& progress) {
  if (o.rank == 0)
    return error{errc::invalid_argument, "rank 0 follows nobody"};
  if (on_gpu(o))
    return serve_on_gpus(o);
  auto ranks = connect_ranks(o);
  if (!ranks)
    return ranks.error();
  auto backend = ops::cpu::make_backend({.threads = threads_of(o), .isa = {}});
  try {
    least_memory(o, **ranks);
    return serve_part(
        o, backend ? result<ops::backend*>{backend->get()} : backend.error(),
        **ranks, 0, progress);
  } catch (const ops::rank_lost& why) {
    return error{errc::unavailable, why.what()};
  }
}

result<std::unique_ptr<engine>> engine::load(const options& o,
                                             const load_progress& progress) {
  auto model = run_loader(o, progress);
  if (!model)
    return model.error();
  return make_engine(std::move(*model));
}

} // namespace troupe::engine
