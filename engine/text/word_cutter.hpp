#pragma once

#include "engine/text/split_pattern.hpp"

#include <optional>
#include <string_view>

namespace troupe::text {

/// The patterns that most byte-level tokenizers cut words by, written out for
/// ASCII: several times as fast as the pattern itself, with the same matches.
class word_cutter {
public:
  /// Nothing if `pattern` is none of them.
  static std::optional<word_cutter> of(std::string_view pattern);

  /// The first match at `from` or after it. Nothing if it cannot be told
  /// without looking at characters beyond ASCII: ask the pattern then.
  std::optional<split_pattern::range> find(std::string_view text,
                                           std::size_t from) const;

private:
  enum class kind { digit, gpt2, llama3 };

  word_cutter(kind what, std::size_t digits_max)
      : kind_(what), digits_max_(digits_max) {
    // nop
  }

  kind kind_;
  std::size_t digits_max_; ///< llama3: of one number
};

} // namespace troupe::text
