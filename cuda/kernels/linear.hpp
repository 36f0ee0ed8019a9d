#pragma once

#include "cuda/kernels/numbers.hpp"

namespace troupe::cuda {

/// Rows of x that a block multiplies with a weight's row that it has read.
inline constexpr int rows_at_once = 8;
/// Columns that a thread reads at once: 16 bytes of 16-bit weights, 8 of e4m3.
inline constexpr int columns_at_once = 8;

/// What is beyond the end counts as 0.
template <class T>
TROUPE_KERNEL void read_columns(const T* from, std::int64_t left, bool whole,
                                float* to) {
  if (whole) {
    read_floats<columns_at_once>(from, to);
    return;
  }
  for (int i = 0; i < columns_at_once; ++i)
    to[i] = i < left ? to_float(from[i]) : 0.0f;
}

/// Adds up the products of a weight's row with `count` rows of x, row r of
/// which is `row_of(r)`, over the columns of a lane: 8 lane to 8 lane + 7, then
/// those 256 further on, and so on. That order depends on nothing but the
/// column.
template <class Stored, class RowOf>
TROUPE_KERNEL void add_up(const Stored* w, std::int64_t cols, int lane,
                          int count, RowOf row_of, float* sums) {
  constexpr std::int64_t step = std::int64_t{warp_size} * columns_at_once;
  // Then all rows of both begin at multiples of 16 bytes.
  const bool whole = cols % columns_at_once == 0;
  for (std::int64_t k = std::int64_t{lane} * columns_at_once; k < cols;
       k += step) {
    float some[columns_at_once];
    float of_row[columns_at_once];
    read_columns(w + k, cols - k, whole, some);
    for (int r = 0; r < rows_at_once; ++r) {
      if (r >= count)
        break;
      read_columns(row_of(r) + k, cols - k, whole, of_row);
      for (int i = 0; i < columns_at_once; ++i)
        sums[r] = fmaf(of_row[i], some[i], sums[r]);
    }
  }
}

/// y[r][o] = sum_i x[r][i] * w[o][i] (+ y[r][o]). A warp makes one output of up
/// to `rows_at_once` rows: block_x is the group of outputs, block_y that of
/// rows. Each thread adds up its columns, then the warp adds, so a row's bits
/// are the same in any company. Where outputs have scales, the sum is
/// multiplied by its output's.
template <class Stored>
struct linear_kernel {
  static constexpr bool collective = true;
  const Stored* weight;
  const float* x;
  std::int64_t outputs;
  std::int64_t cols;
  std::int64_t rows;
  float* y;
  bool add;
  const float* scales = nullptr; ///< of the outputs; null: none

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const std::int64_t warps = t.count() / warp_size;
    const std::int64_t output =
        std::int64_t{t.block_x()} * warps + t.index() / warp_size;
    const int lane = static_cast<int>(t.index() % warp_size);
    const std::int64_t first = std::int64_t{t.block_y()} * rows_at_once;
    const int count = static_cast<int>(
        rows - first < rows_at_once ? rows - first : rows_at_once);
    float sums[rows_at_once] = {};
    const float* rows_of_x = x + first * cols;
    if (output < outputs)
      add_up(
          weight + output * cols, cols, lane, count,
          [&](int r) { return rows_of_x + r * cols; }, sums);
    for (int r = 0; r < rows_at_once; ++r) {
      float sum = t.warp_sum(sums[r]);
      if (lane != 0 || r >= count || output >= outputs)
        continue;
      if (scales != nullptr)
        sum *= scales[output];
      float& to = y[(first + r) * outputs + output];
      to = add ? to + sum : sum;
    }
  }
};

} // namespace troupe::cuda
