#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace troupe::text {

// Sets of characters as `tokenizers` has them (unicode_forms.hpp).

bool is_white_space(char32_t c);
bool is_combining_mark(char32_t c);
bool is_nonspacing_mark(char32_t c);
bool is_bert_control(char32_t c);
bool is_bert_ideograph(char32_t c);

/// Bytes of white space at the ends of valid UTF-8.
std::size_t spaces_at_start(std::string_view text);
std::size_t spaces_at_end(std::string_view text);

/// The last character of valid UTF-8; empty if there is none.
std::string_view last_character(std::string_view text);

/// Each character by itself in its small form.
std::string to_lowercase(std::string_view text);

/// Patterns (split_pattern.hpp) of one character: what `\w` is to Rust, and
/// what the pre-tokenizers Punctuation and BertPreTokenizer mean.
inline constexpr std::string_view word_items =
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\u200C\u200D\u24B6-\u24E9"
    "\U0001F130-\U0001F149\U0001F150-\U0001F169\U0001F170-\U0001F189";
const std::string& punctuation_pattern();

} // namespace troupe::text
