#include "cli/commands.hpp"
#include "engine/inspection.hpp"
#include "engine/memory_plan.hpp"
#include "router/api/json_writer.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <string_view>
#include <system_error>

namespace troupe::cli {

namespace {

using engine::inspection;

engine::options options_of(const inspect_arguments& args) {
  engine::options out;
  out.model = args.model;
  out.tokenizer = args.tokenizer;
  out.quantization = args.quantization;
  out.dtype = args.dtype;
  out.max_model_len = args.max_model_len;
  out.max_num_seqs = args.max_num_seqs;
  out.kv_cache_bytes = args.kv_cache_bytes;
  return out;
}

/// What all tensors of one type are together.
struct type_sum {
  std::uint64_t tensors = 0;
  std::uint64_t elements = 0;
  std::uint64_t bytes = 0;
};

std::uint64_t elements_of(const engine::inspected_tensor& one) {
  std::uint64_t out = 1;
  for (auto size : one.shape)
    out *= static_cast<std::uint64_t>(size);
  return out;
}

std::map<std::string, type_sum> sums_of(const inspection& from) {
  std::map<std::string, type_sum> out;
  for (const auto& one : from.tensors) {
    auto& sum = out[one.type];
    ++sum.tensors;
    sum.elements += elements_of(one);
    sum.bytes += one.bytes;
  }
  return out;
}

std::uint64_t elements_of(const inspection& from) {
  std::uint64_t out = 0;
  for (const auto& [type, sum] : sums_of(from))
    out += sum.elements;
  return out;
}

std::string_view name_of(text::model_kind kind) {
  switch (kind) {
  case text::model_kind::byte_level_bpe:
    return "byte-level BPE";
  case text::model_kind::bpe:
    return "BPE";
  case text::model_kind::unigram:
    return "unigram";
  case text::model_kind::wordpiece:
    return "WordPiece";
  }
  return "?";
}

std::string_view gives(const text::model_card& card) {
  if (!card.pooled)
    return "text";
  return card.pooled->what == text::pooled_output::kind::score
             ? "scores of two texts"
             : "embeddings";
}

/// A token as the vocabulary spells it.
std::string spelled(const text::tokenizer_data& data, token_id id) {
  auto index = static_cast<std::size_t>(id);
  return id >= 0 && index < data.vocabulary.size() ? data.vocabulary[index]
                                                   : "";
}

double mebibytes(std::uint64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

// -- for people

void print_line(std::string_view name, const std::string& value) {
  fmt::print("{:<16}{}\n", name, value);
}

void print_weights(const inspection& from) {
  std::string formats;
  for (const auto& [type, sum] : sums_of(from))
    formats += fmt::format("{}{} {} ({:.1f} MiB)", formats.empty() ? "" : ", ",
                           sum.tensors, type, mebibytes(sum.bytes));
  print_line("weights",
             fmt::format("{:.1f} M in {} tensors",
                         static_cast<double>(elements_of(from)) / 1e6,
                         from.tensors.size()));
  print_line("formats", formats);
  if (!from.quantization.empty())
    print_line("quantised by", from.quantization);
}

void print_card(const text::model_card& card) {
  const auto& data = card.tokenizer;
  print_line("gives", std::string{gives(card)});
  if (card.pooled)
    print_line("numbers", std::to_string(card.pooled->size));
  print_line("tokenizer", fmt::format("{}, {} entries", name_of(data.model),
                                      data.vocabulary.size()));
  std::string ends;
  for (auto id : card.eos_ids)
    ends += fmt::format("{}{} ({})", ends.empty() ? "" : ", ",
                        spelled(data, id), id);
  if (!ends.empty())
    print_line("ends with", ends);
  if (!card.pooled)
    print_line("chat template",
               card.chat_template.empty()
                   ? "none: chat requests are refused"
                   : fmt::format("{} bytes; --template shows it",
                                 card.chat_template.size()));
}

void print_memory(const engine::memory_use& use) {
  auto line = [](std::string_view name, std::uint64_t bytes,
                 const std::string& more) {
    print_line(name, fmt::format("{:>10.1f} MiB{}", mebibytes(bytes), more));
  };
  fmt::print("\nmemory of one replica here\n");
  line("  weights", use.weight_bytes, "");
  if (use.kv_blocks > 0)
    line("  KV cache", use.kv_cache_bytes,
         fmt::format(": {} tokens of {:.1f} KiB", use.kv_tokens(),
                     static_cast<double>(use.kv_block_bytes) / use.block_size /
                         1024));
  line("  workspace", use.workspace_bytes, "");
  if (use.library_bytes > 0)
    line("  for NCCL", use.library_bytes, ", kept free");
  line("  together", use.bytes(), "");
  print_line("max_model_len", std::to_string(use.max_model_len));
}

void print_tensors(const inspection& from) {
  fmt::print("\n");
  for (const auto& one : from.tensors)
    fmt::print("{:<8}{:>20}  {}\n", one.type,
               fmt::format("{}", fmt::join(one.shape, " x ")), one.name);
}

void print_text(const inspection& from, const inspect_arguments& args) {
  print_line("file", fmt::format("{} ({})", from.path.string(), from.format));
  if (!from.architecture.empty())
    print_line("architecture", from.architecture);
  for (const auto& [name, value] : from.numbers)
    print_line(name, std::to_string(value));
  print_weights(from);
  if (from.card)
    print_card(*from.card);
  if (from.memory)
    print_memory(*from.memory);
  if (args.tensors)
    print_tensors(from);
  if (args.chat_template && from.card)
    fmt::print("\n{}\n", from.card->chat_template);
}

// -- for scripts

using api::json_writer;

void write_card(json_writer& json, const text::model_card& card) {
  json.key("gives").text(gives(card));
  if (card.pooled)
    json.key("numbers").natural(card.pooled->size);
  json.key("tokenizer").begin_object();
  json.key("model").text(name_of(card.tokenizer.model));
  json.key("entries").natural(card.tokenizer.vocabulary.size());
  json.key("eos_ids").begin_array();
  for (auto id : card.eos_ids)
    json.integer(id);
  json.end_array().end_object();
  json.key("chat_template").text_or_null(card.chat_template);
}

void write_memory(json_writer& json, const engine::memory_use& use) {
  json.key("memory").begin_object();
  json.key("weight_bytes").natural(use.weight_bytes);
  json.key("kv_cache_bytes").natural(use.kv_cache_bytes);
  json.key("kv_tokens").natural(use.kv_tokens());
  json.key("workspace_bytes").natural(use.workspace_bytes);
  json.key("library_bytes").natural(use.library_bytes);
  json.key("bytes").natural(use.bytes());
  json.key("max_model_len").natural(use.max_model_len).end_object();
}

void write_tensors(json_writer& json, const inspection& from) {
  json.key("tensors").begin_array();
  for (const auto& one : from.tensors) {
    json.begin_object().key("name").text(one.name).key("type").text(one.type);
    json.key("shape").begin_array();
    for (auto size : one.shape)
      json.integer(size);
    json.end_array().key("bytes").natural(one.bytes).end_object();
  }
  json.end_array();
}

std::string json_of(const inspection& from) {
  json_writer json;
  json.begin_object().key("path").text(from.path.string());
  json.key("format").text(from.format);
  json.key("quantization").text_or_null(from.quantization);
  json.key("architecture").text_or_null(from.architecture);
  json.key("parameters").natural(elements_of(from));
  for (const auto& [name, value] : from.numbers)
    json.key(name).integer(value);
  if (from.card)
    write_card(json, *from.card);
  if (from.memory)
    write_memory(json, *from.memory);
  json.key("refusal").text_or_null(from.refusal);
  write_tensors(json, from);
  return json.end_object().take("\n");
}

/// What exists is a path, whatever it is called; anything else may be a model
/// that was pulled.
result<engine::fetched_options> options_here(const inspect_arguments& args) {
  auto out = options_of(args);
  for (auto* path : {&out.model, &out.tokenizer}) {
    std::error_code ignored;
    if (!path->empty() && std::filesystem::exists(*path, ignored))
      *path = std::filesystem::absolute(*path, ignored);
  }
  return engine::fetch(
      std::move(out), [](auto&&...) {}, engine::fetch_from::caches_alone);
}

} // namespace

int inspect(const inspect_arguments& args) {
  auto here = options_here(args);
  if (!here) {
    fmt::print(stderr, "{}{}\n", here.error().message,
               here.error().code == errc::not_found
                   ? ", and there is no such file or folder here; `troupe "
                     "pull` fetches a model of a hub or a bucket"
                   : "");
    return 1;
  }
  auto found = engine::inspect(here->with, engine::available_memory_bytes());
  if (!found) {
    fmt::print(stderr, "{}\n", found.error().message);
    return 1;
  }
  if (args.json)
    fmt::print("{}", json_of(*found));
  else
    print_text(*found, args);
  if (found->refusal.empty())
    return 0;
  fmt::print(stderr, "cannot be served: {}\n", found->refusal);
  return 1;
}

} // namespace troupe::cli
