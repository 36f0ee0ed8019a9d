#include "config/schema.hpp"
#include "config/template_names.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fstream>
#include <limits>
#include <sstream>

namespace troupe::config {

namespace {

constexpr double lengths_max = 1 << 24;
constexpr double ranks_max = 64;
constexpr double sequences_max = 1 << 14;
constexpr double batched_tokens_max = 1 << 16;

void only_one(map_reader& in, std::string_view key) {
  auto value = in.take(key);
  if (!value.present())
    return;
  auto number = read_integer(value, {1, 1e6});
  if (number && *number != 1)
    value.error("above 1: not supported yet");
}

/// A key that asks for what happens anyway when it is one of `allowed`.
void only_text(map_reader& in, std::string_view key,
               std::initializer_list<std::string_view> allowed) {
  auto value = in.take(key);
  if (!value.present())
    return;
  auto text = read_text(value);
  if (text && std::find(allowed.begin(), allowed.end(), *text) == allowed.end())
    value.error(fmt::format("\"{}\": not supported yet; allowed now: {}", *text,
                            fmt::join(allowed, ", ")));
}

/// Arguments of a chat template, as JSON.
std::string read_template_kwargs(const located& value) {
  constexpr std::size_t bytes_max = 64u << 10;
  if (!value.node.IsMap()) {
    value.error("must be a map of the template's variables");
    return {};
  }
  for (const auto& entry : value.node)
    if (is_reserved_template_name(entry.first.Scalar()))
      value.error(fmt::format("must not hold {}", entry.first.Scalar()));
  auto json = to_json(value.node);
  if (json.size() > bytes_max)
    value.error("larger than 64 KiB");
  return json;
}

/// A word of the user's and the engine's for it.
struct word {
  std::string_view said;
  std::string_view means;
};

/// One of the words; empty, with an error, for any other.
std::string read_word(map_reader& in, std::string_view key,
                      std::initializer_list<word> words) {
  auto value = in.take(key);
  if (!value.present())
    return {};
  auto text = read_text(value);
  std::string known;
  for (auto [said, means] : words) {
    if (text && *text == said)
      return std::string{means};
    known += (known.empty() ? "" : ", ") + std::string{said};
  }
  if (text)
    value.error(fmt::format("\"{}\": not supported yet; allowed now: {}", *text,
                            known));
  return {};
}

std::string read_quantization(map_reader& in) {
  return read_word(in, "quantization",
                   {{"q8_0", "q8_0"},
                    {"q4_0", "q4_0"},
                    {"gguf", "gguf"},
                    {"awq", "awq"},
                    {"awq_marlin", "awq"},
                    {"gptq", "gptq"},
                    {"gptq_marlin", "gptq"},
                    {"compressed-tensors", "compressed-tensors"},
                    {"fp8", "fp8"}});
}

/// vLLM's older word for what a model gives, and its newer ones.
std::string read_task(map_reader& in) {
  auto task = read_word(in, "task",
                        {{"auto", ""},
                         {"generate", "generate"},
                         {"embed", "embed"},
                         {"embedding", "embed"},
                         {"score", "score"}});
  auto runner = read_word(
      in, "runner",
      {{"auto", ""}, {"generate", "generate"}, {"pooling", "pooling"}});
  auto convert = read_word(in, "convert",
                           {{"auto", ""}, {"none", ""}, {"embed", "embed"}});
  for (auto& one : {task, convert})
    if (!one.empty())
      return one;
  return runner;
}

std::string read_dtype(map_reader& in) {
  return read_word(in, "dtype",
                   {{"auto", ""},
                    {"half", "float16"},
                    {"float16", "float16"},
                    {"bfloat16", "bfloat16"},
                    {"float", "float32"},
                    {"float32", "float32"}});
}

/// A template's source: inline if it looks like Jinja, else the file it names.
std::string read_chat_template(const located& value) {
  auto text = read_text(value);
  if (!text)
    return {};
  if (text->find('{') != std::string::npos)
    return *text;
  if (value.read_for == purpose::request) {
    value.error("no template (no \"{\" in it); a request cannot name a file");
    return {};
  }
  constexpr std::uintmax_t template_bytes_max = 768u << 10;
  auto path = beside(value.file, *text);
  std::error_code code;
  auto size = std::filesystem::file_size(path, code);
  if (code) {
    value.error("neither a template (no \"{\" in it) nor a readable file");
    return {};
  }
  if (size > template_bytes_max) {
    value.error("the template file is larger than 768 KiB");
    return {};
  }
  std::ifstream stream{path, std::ios::binary};
  std::stringstream source;
  source << stream.rdbuf();
  if (!stream)
    value.error("the template file cannot be read");
  else if (source.str().find('{') == std::string::npos)
    value.error("the file holds no template (no \"{\" in it)");
  value.replace(source.str());
  return source.str();
}

} // namespace

engine_kwargs read_engine_kwargs(const located& value) {
  engine_kwargs out;
  map_reader in{value};
  auto count = [&](std::string_view key, double high) {
    return static_cast<std::uint32_t>(in.integer(key, {1, high}).value_or(0));
  };
  out.max_model_len = count("max_model_len", lengths_max);
  out.max_num_seqs = count("max_num_seqs", sequences_max);
  out.max_num_batched_tokens =
      count("max_num_batched_tokens", batched_tokens_max);
  if (auto size = in.take("block_size"); size.present()) {
    auto tokens = read_integer(size, {16, 256});
    if (tokens && *tokens % 16 != 0)
      size.error("must be a multiple of 16");
    out.block_size = static_cast<std::uint32_t>(tokens.value_or(0));
  }
  out.kv_cache_memory_bytes = static_cast<std::uint64_t>(
      in.integer("kv_cache_memory_bytes", {1, 9e15}).value_or(0));
  out.enable_prefix_caching =
      in.boolean("enable_prefix_caching").value_or(true);
  in.only("enable_chunked_prefill", true,
          "prompts are always computed in chunks; false: not supported");
  if (auto source = in.take("chat_template"); source.present()) {
    out.chat_template_at = source.where();
    out.chat_template_path = source.path;
    out.chat_template = read_chat_template(source);
  }
  out.trust_request_chat_template =
      in.boolean("trust_request_chat_template").value_or(false);
  if (auto kwargs = in.take("default_chat_template_kwargs"); kwargs.present())
    out.default_chat_template_kwargs = read_template_kwargs(kwargs);

  out.quantization = read_quantization(in);
  out.dtype = read_dtype(in);
  out.load_format = read_word(
      in, "load_format",
      {{"auto", ""}, {"gguf", "gguf"}, {"safetensors", "safetensors"}});
  if (auto seed = in.take("seed"); seed.present())
    if (auto number = read_integer(seed, {0, 9e15}))
      out.seed = static_cast<std::uint64_t>(*number);
  out.generation_defaults =
      read_word(in, "generation_config", {{"auto", ""}, {"vllm", "vllm"}}) !=
      "vllm";
  if (auto share = in.take("gpu_memory_utilization"); share.present())
    out.memory_utilization = read_number(share, {0.01, 1}).value_or(0);

  for (auto key : {"model", "served_model_name"})
    in.refuse(key, "comes from model_loading_config; remove it here");
  out.tensor_parallel_size = count("tensor_parallel_size", ranks_max);
  for (auto key : {"pipeline_parallel_size", "data_parallel_size"})
    only_one(in, key);
  out.kv_cache_dtype = read_word(in, "kv_cache_dtype",
                                 {{"auto", ""},
                                  {"float16", "float16"},
                                  {"bfloat16", "bfloat16"},
                                  {"fp8", "fp8_e4m3"},
                                  {"fp8_e4m3", "fp8_e4m3"}});
  only_text(in, "tokenizer_mode", {"auto"});
  out.task = read_task(in);
  for (auto key : {"enable_lora", "enable_auto_tool_choice",
                   "enable_expert_parallel", "disable_log_stats"})
    in.only(key, false, "true: not supported yet");
  if (auto trust = in.take("trust_remote_code"); trust.present())
    if (read_boolean(trust).value_or(false))
      trust.note("no code that comes with a model is ever run");
  if (auto eager = in.take("enforce_eager"); eager.present())
    if (read_boolean(eager))
      eager.note(
          "a GPU's steps are graphs where they can be: the bits are the same");
  in.refuse({"swap_space",
             "cpu_offload_gb",
             "max_loras",
             "max_lora_rank",
             "kv_transfer_config",
             "compilation_config",
             "speculative_config",
             "tool_call_parser",
             "reasoning_parser",
             "guided_decoding_backend",
             "structured_outputs_config",
             "rope_scaling",
             "rope_theta",
             "hf_overrides",
             "hf_config_path",
             "revision",
             "tokenizer",
             "tokenizer_revision",
             "download_dir",
             "max_logprobs",
             "limit_mm_per_prompt",
             "mm_processor_kwargs",
             "distributed_executor_backend",
             "max_parallel_loading_workers",
             "num_gpu_blocks_override",
             "scheduling_policy",
             "async_scheduling",
             "long_prefill_token_threshold",
             "max_long_partial_prefills",
             "max_num_partial_prefills",
             "disable_sliding_window",
             "disable_custom_all_reduce",
             "enable_log_requests",
             "enable_sleep_mode",
             "override_generation_config",
             "logits_processors",
             "kv_events_config",
             "max_seq_len_to_capture",
             "cuda_graph_sizes",
             "attention_backend",
             "response_role",
             "chat_template_content_format"});
  if (out.max_num_seqs != 0 && out.max_num_batched_tokens != 0 &&
      out.max_num_batched_tokens < out.max_num_seqs)
    value.error(fmt::format(
        "max_num_batched_tokens ({}) must be at least max_num_seqs ({}): each "
        "running sequence needs a row in every step",
        out.max_num_batched_tokens, out.max_num_seqs));
  return out;
}

} // namespace troupe::config
