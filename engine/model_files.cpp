#include "engine/model_files.hpp"

#include "engine/model/hugging_face/directory_card.hpp"
#include "engine/model/hugging_face/tokenizer_files.hpp"
#include "engine/model/model_card.hpp"
#include "engine/model/model_source.hpp"
#include "engine/model/open_checkpoint.hpp"
#include "engine/text/chat_template.hpp"
#include "engine/text/tokenizer.hpp"
#include "engine/weights/converted_checkpoint.hpp"

#include <fmt/format.h>
#include <system_error>

namespace troupe::engine {

namespace {

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
  const auto& kv = o.kv_cache_dtype;
  if (!kv.empty() && kv != "float16" && kv != "bfloat16" && kv != "fp8_e4m3")
    return error{errc::invalid_argument,
                 fmt::format("kv_cache_dtype: '{}' is not known", kv)};
  if (kv == "fp8_e4m3" && o.device != "cuda")
    return error{errc::unsupported,
                 "kv_cache_dtype: fp8_e4m3 is for GPUs; a CPU has float16 and "
                 "bfloat16"};
  if (kv == "bfloat16" && o.device == "cuda")
    return error{errc::unsupported,
                 "kv_cache_dtype: bfloat16 is for CPUs; a GPU has float16 and "
                 "fp8"};
  if (!(o.gpu_share >= 0 && o.gpu_share <= 1))
    return error{errc::invalid_argument, "a share of a GPU is not in 0 to 1"};
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
  // A GPU's own products do not round their inputs.
  const auto exact =
      o.device == "cuda" ? matrix_form::as_stored : matrix_form::f32;
  const named types[] = {{"", matrix_form::as_stored},
                         {"float32", exact},
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

/// How its tensors were quantised: "awq"; "gguf"; "nothing".
std::string method_of(const std::filesystem::path& source,
                      const weights::checkpoint& file) {
  if (auto* said = file.find(weights::quantisation_key))
    if (auto* method = std::get_if<std::string>(said))
      return *method;
  return format_of(source) == "gguf" ? "gguf" : "nothing";
}

/// A GPU keeps what is fp8 already, unless it is to become something else.
model::hugging_face::e4m3_matrices e4m3_in(const options& o,
                                           weights::matrix_form form) {
  using model::hugging_face::e4m3_matrices;
  using weights::matrix_form;
  const bool changes = form == matrix_form::q8_0 || form == matrix_form::q4_0;
  return o.device == "cuda" && !changes ? e4m3_matrices::kept
                                        : e4m3_matrices::as_f16;
}

/// Whether the GPU is to round a model's matrices that are not fp8 yet.
bool becomes_fp8(const options& o, const std::string& method) {
  return o.quantization == "fp8" && o.device == "cuda" &&
         (method == "nothing" || method == "gguf");
}

/// A model may be asked for by its format ("safetensors") and by the way that
/// it is quantised ("awq"); both have to be true.
result<void> check_kind(const options& o, const std::filesystem::path& source,
                        const weights::checkpoint& file) {
  const auto format = format_of(source);
  if (!o.load_format.empty() && o.load_format != format)
    return error{errc::invalid_argument,
                 fmt::format("load_format: {} is of the format {}, not {}",
                             file.name(), format, o.load_format)};
  const auto& wanted = o.quantization;
  const auto found = method_of(source, file);
  if (wanted.empty() || wanted == "q8_0" || wanted == "q4_0" ||
      found == wanted || becomes_fp8(o, found))
    return {};
  return error{errc::invalid_argument,
               fmt::format("quantization: {} is quantised with {}, not with "
                           "{}; q8_0 and q4_0, and on GPUs fp8, quantise a "
                           "model when it is loaded",
                           file.name(), found, wanted)};
}

error in_folder(const std::filesystem::path& folder, error why) {
  why.message = fmt::format("'{}': {}", folder.string(), why.message);
  return why;
}

/// As the files have it.
result<text::model_card> stored_card(const options& o, const model_files& files,
                                     const model::model_config& config) {
  using namespace model::hugging_face;
  if (is_folder(files.source)) {
    const auto& from = o.tokenizer.empty() ? files.source : o.tokenizer;
    auto card = read_directory_card(files.source, from, config);
    return card ? card : in_folder(from, card.error());
  }
  if (o.tokenizer.empty())
    return model::read_model_card(*files.checkpoint, config);
  return model::read_model_card(
      *files.checkpoint, config, [&](text::model_card& card) -> result<void> {
        auto done = read_tokenizer_files(o.tokenizer, card);
        return done ? done : in_folder(o.tokenizer, done.error());
      });
}

/// A model may be asked for by what it gives; it has to be true.
result<void> check_task(const options& o, const model_files& files,
                        const text::model_card& card) {
  const auto gives = !card.pooled ? "generate"
                     : card.pooled->what == text::pooled_output::kind::score
                         ? "score"
                         : "embed";
  if (o.task.empty() || o.task == gives || (o.task == "pooling" && card.pooled))
    return {};
  return error{errc::invalid_argument,
               fmt::format("task: {} is a model for '{}', not for '{}'",
                           files.checkpoint->name(), gives, o.task)};
}

/// What the routers will build from the card has to work.
result<void> check_text(const text::model_card& card) {
  auto tokenizer = text::tokenizer::make(card.tokenizer);
  if (!tokenizer)
    return tokenizer.error();
  auto chat = text::chat_template::compile(card.chat_template);
  if (!chat)
    return chat.error();
  return {};
}

} // namespace

std::string format_of(const std::filesystem::path& source) {
  return is_folder(source) ? "safetensors" : "gguf";
}

result<model_files> open_files(const options& o) {
  if (auto fine = check(o); !fine)
    return fine.error();
  auto path = model::resolve_model_source(o.model);
  if (!path)
    return path.error();
  auto form = form_of(o);
  if (!form)
    return form.error();
  auto file = model::open_checkpoint(*path, e4m3_in(o, *form));
  if (!file)
    return file.error();
  if (auto fine = check_kind(o, *path, **file); !fine)
    return fine.error();
  if (becomes_fp8(o, method_of(*path, **file)))
    form = weights::matrix_form::e4m3;
  return model_files{*path, weights::convert_matrices(std::move(*file), *form)};
}

result<text::model_card> read_card(const options& o, const model_files& files,
                                   const model::model_config& config) {
  auto card = stored_card(o, files, config);
  if (!card)
    return card;
  if (config.pooled)
    card->pooled = config.pooling.output;
  if (!o.generation_defaults)
    card->defaults = {};
  card->defaults.seed = o.seed;
  if (!o.chat_template.empty())
    card->chat_template = o.chat_template;
  card->trust_request_template = o.trust_request_template;
  card->template_kwargs = o.template_kwargs;
  if (auto fine = check_task(o, files, *card); !fine)
    return fine.error();
  if (auto fine = check_text(*card); !fine)
    return fine.error();
  return card;
}

} // namespace troupe::engine
