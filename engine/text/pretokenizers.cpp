#include "engine/text/pretokenizers.hpp"

#include <array>

namespace troupe::text {

namespace {

// A word, number or run of symbols takes one space before it with it; other
// white space leaves its last character to what follows.
constexpr const char* gpt2_words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+)"
    R"(|\s+(?!\S)|\s+)";

// As above, but line ends stay together, any symbol may lead a word, and
// numbers are cut into threes (Llama 3) or single digits (Qwen 2).
constexpr const char* llama3_words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr const char* qwen2_words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Words are cut where their case changes; GPT-4o's keep a contraction's end.
constexpr const char* gpt4o_words =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr const char* tekken_words =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+)"
    R"([\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct family {
  std::string_view name;
  const char* first;
  const char* second = nullptr;
  bool normalize_nfc = false;
  bool ignore_merges = false;
};

constexpr auto families = std::to_array<family>({
    {.name = "gpt-2", .first = gpt2_words},
    {.name = "phi-2", .first = gpt2_words},
    {.name = "smollm", .first = digit_pattern, .second = gpt2_words},
    {.name = "starcoder", .first = digit_pattern, .second = gpt2_words},
    {.name = "refact", .first = digit_pattern, .second = gpt2_words},
    {.name = "command-r", .first = digit_pattern, .second = gpt2_words},
    {.name = "llama-bpe", .first = llama3_words, .ignore_merges = true},
    {.name = "llama3", .first = llama3_words, .ignore_merges = true},
    {.name = "llama-v3", .first = llama3_words, .ignore_merges = true},
    {.name = "smaug-bpe", .first = llama3_words},
    {.name = "dbrx", .first = llama3_words},
    {.name = "qwen2", .first = qwen2_words, .normalize_nfc = true},
    {.name = "deepseek-r1-qwen", .first = qwen2_words},
    {.name = "gpt-4o", .first = gpt4o_words},
    {.name = "tekken", .first = tekken_words, .ignore_merges = true},
});

} // namespace

std::optional<pretokenizer> pretokenizer_of(std::string_view gguf_pre_name) {
  for (const auto& known : families) {
    if (known.name != gguf_pre_name)
      continue;
    pretokenizer out;
    out.split_patterns.emplace_back(known.first);
    if (known.second != nullptr)
      out.split_patterns.emplace_back(known.second);
    out.normalize_nfc = known.normalize_nfc;
    out.ignore_merges = known.ignore_merges;
    return out;
  }
  return std::nullopt;
}

std::optional<std::vector<std::string>>
split_patterns_of(std::string_view gguf_pre_name) {
  auto known = pretokenizer_of(gguf_pre_name);
  if (!known)
    return std::nullopt;
  return std::move(known->split_patterns);
}

} // namespace troupe::text
