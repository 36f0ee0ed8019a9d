#pragma once

#include "cuda/kernels/rows.hpp"

// What several ranks have of the same numbers, one after the other in `parts`:
// rank r's begin at r * n.

namespace troupe::cuda {

/// out[i] = the sum of all ranks' i-th, in the order of ranks.
struct add_parts_kernel {
  static constexpr bool collective = false;
  const float* parts;
  std::int32_t ranks;
  unsigned blocks;
  std::int64_t n;
  float* out;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    for_columns(t, blocks, n, [&](std::int64_t i) {
      float sum = parts[i];
      for (std::int32_t r = 1; r < ranks; ++r)
        sum += parts[r * n + i];
      out[i] = sum;
    });
  }
};

/// Puts columns beside each other: a rank's n numbers are those from the
/// `first` on of rows of `cols`; out has rows of ranks * cols. block_y is the
/// rank.
struct place_parts_kernel {
  static constexpr bool collective = false;
  const float* parts;
  std::int32_t ranks;
  unsigned blocks;
  std::int64_t n;
  std::int64_t first;
  std::int64_t cols;
  float* out;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const std::int64_t rank = t.block_y();
    for_columns(t, blocks, n, [&](std::int64_t i) {
      const std::int64_t row = (first + i) / cols, col = (first + i) % cols;
      out[(row * ranks + rank) * cols + col] = parts[rank * n + i];
    });
  }
};

} // namespace troupe::cuda
