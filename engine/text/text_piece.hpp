#pragma once

#include <string>
#include <vector>

namespace troupe::text {

/// A run of text with its origin. Only template text (and raw prompts of
/// /v1/completions) may name special tokens: "<|im_end|>" in content is plain
/// characters (row P8 of the attack table).
struct text_piece {
  std::string text;
  bool content = false;

  bool operator==(const text_piece&) const = default;
};

/// Rendered text: pieces in order, neighbours of different origin.
using text_pieces = std::vector<text_piece>;

} // namespace troupe::text
