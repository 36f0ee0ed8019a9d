#pragma once

#include "engine/ops/tensor.hpp"

namespace troupe::ops::cpu {

/// 32 columns of a row as the file has them, in the terms of tile_format.hpp.
struct file_block {
  /// What is stored, four columns in a word, the first in the lowest byte. For
  /// a format that looks its values up these are the bits to look up.
  std::uint32_t stored[8];
  std::uint16_t scale;   ///< f16, of the block or super-block
  std::uint16_t minimum; ///< likewise; 0 if there is none
  std::uint8_t bytes[2]; ///< of a super-block: scale and minimum (q4_k, q5_k),
                         ///< else of columns 0-15 and of columns 16-31
};

/// Block b (of 32 columns) of the quantised `row`. The formats are GGML's.
file_block read_file_block(element_type type, const std::byte* row,
                           std::int64_t b);

} // namespace troupe::ops::cpu
