#include "engine/engine.hpp"

#include "engine/engine_thread.hpp"
#include "engine/memory_plan.hpp"
#include "engine/model/decoder.hpp"
#include "engine/model/encoder.hpp"
#include "engine/model/hugging_face/directory_card.hpp"
#include "engine/model/hugging_face/tokenizer_files.hpp"
#include "engine/model/model_card.hpp"
#include "engine/model/model_source.hpp"
#include "engine/model/open_checkpoint.hpp"
#include "engine/ops/cpu/cpu_backend.hpp"
#include "engine/ops/cpu/sizing_backend.hpp"
#include "engine/text/chat_template.hpp"
#include "engine/text/tokenizer.hpp"
#include "engine/weights/converted_checkpoint.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <thread>

namespace troupe::engine {

namespace {

/// Prompt rows whose logits may be wanted in one step: a bound on memory.
constexpr std::uint32_t max_scored_rows = 64;

constexpr std::uint32_t max_num_seqs_max = 1u << 14;
constexpr std::uint32_t max_num_batched_tokens_max = 1u << 16;
constexpr std::uint32_t block_size_max = 1u << 10;

result<void> check(const options& o) {
  struct bounded {
    const char* name;
    std::uint32_t value;
    std::uint32_t max;
  };
  for (const bounded& b :
       {bounded{"max_num_seqs", o.max_num_seqs, max_num_seqs_max},
        bounded{"max_num_batched_tokens", o.max_num_batched_tokens,
                max_num_batched_tokens_max},
        bounded{"block_size", o.block_size, block_size_max}})
    if (b.value < 1 || b.value > b.max)
      return error{
          errc::invalid_argument,
          fmt::format("{}: {} is not in 1 to {}", b.name, b.value, b.max)};
  if (o.threads < 0)
    return error{errc::invalid_argument, "threads: negative"};
  if (!(o.memory_utilization >= 0 && o.memory_utilization <= 1))
    return error{errc::invalid_argument,
                 "gpu_memory_utilization: is not in 0 to 1"};
  return {};
}

/// What the options make of the matrices of floats.
result<weights::matrix_form> form_of(const options& o) {
  using weights::matrix_form;
  struct named {
    std::string_view name;
    matrix_form form;
  };
  constexpr named quantised[] = {{"q8_0", matrix_form::q8_0},
                                 {"q4_0", matrix_form::q4_0}};
  for (const auto& one : quantised)
    if (o.quantization == one.name)
      return one.form;
  constexpr named types[] = {{"", matrix_form::as_stored},
                             {"float32", matrix_form::as_stored},
                             {"float16", matrix_form::f16},
                             {"bfloat16", matrix_form::bf16}};
  for (const auto& one : types)
    if (o.dtype == one.name)
      return one.form;
  return error{errc::invalid_argument,
               fmt::format("dtype: '{}' is not known", o.dtype)};
}

/// False for a .gguf file (model_source.hpp).
bool is_folder(const std::filesystem::path& source) {
  std::error_code ignored;
  return std::filesystem::is_directory(source, ignored);
}

/// A model may be asked for by its format ("safetensors") and by the way that
/// it is quantised ("awq"); both have to be true.
result<void> check_kind(const options& o, const std::filesystem::path& source,
                        const weights::checkpoint& file) {
  const std::string format = is_folder(source) ? "safetensors" : "gguf";
  if (!o.load_format.empty() && o.load_format != format)
    return error{errc::invalid_argument,
                 fmt::format("load_format: {} is of the format {}, not {}",
                             file.name(), format, o.load_format)};
  const auto& wanted = o.quantization;
  if (wanted.empty() || wanted == "q8_0" || wanted == "q4_0")
    return {};
  std::string found = format == "gguf" ? "gguf" : "nothing";
  if (auto* said = file.find(weights::quantisation_key))
    if (auto* method = std::get_if<std::string>(said))
      found = *method;
  if (found != wanted)
    return error{errc::invalid_argument,
                 fmt::format("quantization: {} is quantised with {}, not with "
                             "{}; q8_0 and q4_0 quantise a model when it is "
                             "loaded",
                             file.name(), found, wanted)};
  return {};
}

int threads_for_hash(const options& o) {
  const unsigned machine = std::max(1u, std::thread::hardware_concurrency());
  return o.threads > 0 ? o.threads : static_cast<int>(machine);
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

model::decoder_limits limits_of(const scheduler::bounds& bounds,
                                std::uint32_t kv_blocks) {
  const std::uint32_t logit_rows =
      std::min(bounds.max_num_batched_tokens,
               bounds.max_num_seqs + bounds.max_scored_rows);
  return {.rows_max = static_cast<int>(bounds.max_num_batched_tokens),
          .logit_rows_max = static_cast<int>(logit_rows),
          .kv_block_tokens = static_cast<int>(bounds.block_size),
          .kv_blocks = static_cast<int>(kv_blocks)};
}

/// A model and what its header says.
struct opened_model {
  std::filesystem::path source; ///< a .gguf file or a directory
  std::unique_ptr<weights::checkpoint> file;
  model::model_config config;
};

result<opened_model> open_model(const options& o) {
  if (auto fine = check(o); !fine)
    return fine.error();
  auto path = model::resolve_model_source(o.model);
  if (!path)
    return path.error();
  auto form = form_of(o);
  if (!form)
    return form.error();
  auto file = model::open_checkpoint(*path);
  if (!file)
    return file.error();
  if (auto fine = check_kind(o, *path, **file); !fine)
    return fine.error();
  auto shown = weights::convert_matrices(std::move(*file), *form);
  auto config =
      model::read_model_config(*shown, static_cast<int>(o.max_model_len));
  if (!config)
    return config.error();
  return opened_model{*path, std::move(shown), std::move(*config)};
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
                             model.file->name(), o.max_model_len, most)};
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

/// Bytes of all that is not the KV cache.
result<std::uint64_t> other_bytes(const options& o, const opened_model& model) {
  auto backend = ops::cpu::make_sizing_backend();
  auto size = model::decoder_size(*model.file, model.config, *backend,
                                  limits_of(bounds_of(o), 1));
  if (!size)
    return size.error();
  return size->weights + size->workspace;
}

struct planned_memory {
  std::uint64_t block_bytes = 0;
  memory_plan plan;
};

result<planned_memory> plan_for(const options& o, const opened_model& model,
                                ops::backend& backend,
                                std::uint64_t available_bytes) {
  auto block_bytes = model::kv_block_bytes(model.config, backend,
                                           static_cast<int>(o.block_size));
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
       .available_bytes = available_bytes,
       .utilization_asked = o.memory_utilization,
       .other_bytes = *others});
  if (!plan)
    return error{plan.error().code,
                 model.file->name() + ": " + plan.error().message};
  return planned_memory{*block_bytes, *plan};
}

/// Loads a model step by step.
class loader {
public:
  loader(const options& o, const load_progress& progress)
      : options_(o), progress_(progress) {
  }

  result<loaded_model> run() {
    using step = result<void> (loader::*)();
    for (step one : {&loader::open, &loader::make_backend, &loader::make_card,
                     &loader::plan, &loader::make_runner})
      if (auto done = (this->*one)(); !done)
        return done.error();
    describe();
    return std::move(model_);
  }

private:
  result<void> open() {
    auto opened = open_model(options_);
    if (!opened)
      return opened.error();
    source_ = std::move(*opened);
    return {};
  }

  result<void> make_backend() {
    auto backend =
        ops::cpu::make_backend({.threads = options_.threads, .isa = {}});
    if (!backend)
      return backend.error();
    model_.backend = std::move(*backend);
    return {};
  }

  result<void> make_card() {
    auto card = read_card();
    if (!card)
      return card.error();
    model_.card = std::move(*card);
    if (is_pooled())
      model_.card.pooled = source_.config.pooling.output;
    if (!options_.generation_defaults)
      model_.card.defaults = {};
    model_.card.defaults.seed = options_.seed;
    if (!options_.chat_template.empty())
      model_.card.chat_template = options_.chat_template;
    model_.card.trust_request_template = options_.trust_request_template;
    model_.card.template_kwargs = options_.template_kwargs;
    return check_text();
  }

  result<text::model_card> read_card() const {
    using namespace model::hugging_face;
    const auto& tokenizer = options_.tokenizer;
    if (is_folder(source_.source)) {
      const auto& from = tokenizer.empty() ? source_.source : tokenizer;
      auto card = read_directory_card(source_.source, from, source_.config);
      return card ? card : in_folder(from, card.error());
    }
    auto card = model::read_model_card(*source_.file, source_.config);
    if (card && !tokenizer.empty())
      if (auto done = read_tokenizer_files(tokenizer, *card); !done)
        return in_folder(tokenizer, done.error());
    return card;
  }

  static error in_folder(const std::filesystem::path& folder, error why) {
    why.message = fmt::format("'{}': {}", folder.string(), why.message);
    return why;
  }

  /// What the routers will build from the card has to work: a tokenizer or a
  /// template that they cannot use refuses the model here.
  result<void> check_text() const {
    auto tokenizer = text::tokenizer::make(model_.card.tokenizer);
    if (!tokenizer)
      return tokenizer.error();
    auto chat = text::chat_template::compile(model_.card.chat_template);
    if (!chat)
      return chat.error();
    return {};
  }

  bool is_pooled() const {
    return source_.config.pooled;
  }

  result<void> plan() {
    return is_pooled() ? plan_pooled() : plan_decoder();
  }

  result<void> plan_pooled() {
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
    auto planned =
        plan_for(options_, source_, *model_.backend, available_memory_bytes());
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
        *source_.file, source_.config, *model_.backend,
        pooling_limits_of(options_, model_.pooling.max_model_len), progress_);
    if (!runner)
      return runner.error();
    model_.about.weight_bytes = (*runner)->weight_bytes();
    model_.pooler = std::move(*runner);
    return {};
  }

  result<void> make_decoder() {
    auto runner = model::decoder::make(
        *source_.file, source_.config, *model_.backend,
        limits_of(model_.config.bounds, model_.config.kv_blocks), progress_);
    if (!runner)
      return runner.error();
    model_.about.weight_bytes = (*runner)->weight_bytes();
    model_.about.kv_cache_bytes = (*runner)->kv_cache_bytes();
    model_.runner = std::move(*runner);
    return {};
  }

  void describe() {
    model_.about.arithmetic_class = arithmetic_class_of(
        source_.file->content_hash(threads_for_hash(options_)),
        model_.backend->arithmetic() +
            (source_.config.short_rope ? "/short-rope" : ""));
    model_.about.device = "cpu: " + model_.backend->description();
    model_.about.kv_blocks = model_.config.kv_blocks;
    model_.about.max_num_seqs = options_.max_num_seqs;
  }

  const options& options_;
  const load_progress& progress_;
  opened_model source_;
  loaded_model model_;
};

} // namespace

namespace {

result<memory_use> measure_pooled(const options& o,
                                  const opened_model& source) {
  auto longest = longest_text(o, source);
  if (!longest)
    return longest.error();
  auto backend = ops::cpu::make_sizing_backend();
  auto size = model::encoder_size(*source.file, source.config, *backend,
                                  pooling_limits_of(o, *longest));
  if (!size)
    return size.error();
  return memory_use{.weight_bytes = size->weights,
                    .workspace_bytes = size->workspace,
                    .block_size = o.block_size,
                    .max_model_len = *longest};
}

} // namespace

result<memory_use> measure(const options& o, std::uint64_t available_bytes) {
  auto source = open_model(o);
  if (!source)
    return source.error();
  if (source->config.pooled)
    return measure_pooled(o, *source);
  auto backend = ops::cpu::make_sizing_backend();
  auto planned = plan_for(o, *source, *backend, available_bytes);
  if (!planned)
    return planned.error();
  auto size =
      model::decoder_size(*source->file, source->config, *backend,
                          limits_of(bounds_of(o), planned->plan.kv_blocks));
  if (!size)
    return size.error();
  return memory_use{.weight_bytes = size->weights,
                    .kv_cache_bytes = size->kv_cache,
                    .kv_block_bytes = planned->block_bytes,
                    .workspace_bytes = size->workspace,
                    .kv_blocks = planned->plan.kv_blocks,
                    .block_size = o.block_size,
                    .max_model_len = planned->plan.max_model_len};
}

result<std::unique_ptr<engine>> engine::load(const options& o,
                                             const load_progress& progress) {
  auto model = loader{o, progress}.run();
  if (!model)
    return model.error();
  return make_engine(std::move(*model));
}

} // namespace troupe::engine
