#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::text {

/// One digit of any script or other numeric character: what `tokenizers` calls
/// Digits (it follows Unicode 17, while patterns follow 16).
inline constexpr const char* digit_pattern =
    "[\\p{N}\U00011DE0-\U00011DE9\U00016FF4-\U00016FF6]";

/// How a model family cuts text before BPE. GGUF files name the family
/// ("tokenizer.ggml.pre") where a tokenizer.json spells it out.
struct pretokenizer {
  std::vector<std::string> split_patterns; ///< tokenizer_data's
  bool normalize_nfc = false;
  bool ignore_merges = false;
};

/// The family of that name as its tokenizer.json says it. Nothing for a name
/// that is not in the table ("default" too, which says nothing about the
/// model): refuse the file, a guess gives wrong tokens without a word.
std::optional<pretokenizer> pretokenizer_of(std::string_view gguf_pre_name);

/// Only the patterns of `pretokenizer_of`.
std::optional<std::vector<std::string>>
split_patterns_of(std::string_view gguf_pre_name);

} // namespace troupe::text
