#pragma once

#include "engine/text/split_pattern.hpp"
#include "engine/text/tokenizer_data.hpp"
#include "engine/text/word_cutter.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace troupe::text {

/// Finds a text_pattern. Immutable; any thread may match.
class text_matcher {
public:
  /// Refuses an empty text and what `split_pattern` refuses.
  static result<text_matcher> make(const text_pattern& pattern);

  /// The first match that begins at `from` or after it; `text` is valid UTF-8.
  std::optional<split_pattern::range>
  find(std::string_view text, std::size_t from, match_scratch& scratch) const;

  /// `text` with every match replaced.
  std::string replace_all(std::string_view text, std::string_view by,
                          match_scratch& scratch) const;

private:
  std::string literal_; ///< empty: the pattern counts
  std::optional<split_pattern> regex_;
  std::optional<word_cutter> cutter_; ///< for `regex_`, where it can tell
};

} // namespace troupe::text
