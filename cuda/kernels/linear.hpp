#pragma once

#include "cuda/kernels/many_rows_product.hpp"
#include "cuda/kernels/rows.hpp"
#include "cuda/kernels/tile_product.hpp"

namespace troupe::cuda {

/// The outputs that a block makes, `at_once` from `first` on, of so many. Half
/// of a gated block's tiles are of them, half of what they are multiplied with,
/// as many rows of the weight further on.
struct block_outputs {
  std::int64_t first;
  int at_once;
  std::int64_t outputs;

  /// The weight's row of the tiles' output o; any of its half that is there
  /// where that is not.
  TROUPE_KERNEL std::int64_t row_of(int o) const {
    const bool is_second = o >= at_once;
    const std::int64_t at = first + (is_second ? o - at_once : o);
    return (at < outputs ? at : first) + (is_second ? outputs : 0);
  }
};

/// What becomes of a product's sums, in this order.
struct product_end {
  /// Of e4m3: by which outputs are multiplied, or what is added to their sums,
  /// block by block.
  const float* scales = nullptr;
  bool adds = false;           ///< to what is there
  const float* bias = nullptr; ///< is added
  /// Nothing else then but scales: the second half of a weight's outputs are
  /// multiplied by the first, gated.
  bool is_gated = false;
  gate how = gate::silu;

  /// Of a sum, where it is not gated.
  TROUPE_KERNEL float ended(float sum, std::int64_t output,
                            const float& there) const {
    if (adds)
      sum = there + sum;
    return bias != nullptr ? sum + bias[output] : sum;
  }
};

/// A sum of a block's product that was shown, times the scale of the weight's
/// row, if rows have one each.
template <class Product, class Threads>
TROUPE_KERNEL float scaled_sum_of(Threads& t, int row, int output,
                                  const float* scales,
                                  std::int64_t weight_row) {
  const float sum = Product::sum_of(t, row, output);
  return is_in_blocks<typename Product::stored> || scales == nullptr
             ? sum
             : sum * scales[weight_row];
}

/// y[r][o] = sum_i x[r][i] * w[o][i], for some rows (block_x) and outputs
/// (block_y), as many as the block's product has (tile_product or
/// many_rows_product: the bits are the same). Numbers are multiplied as bf16,
/// in two parts where they have more bits than that: what is lost is below
/// 2^-16 of a number.
template <class Product>
struct linear_kernel {
  static constexpr bool collective = true;
  static constexpr unsigned threads = column_warps * warp_size; ///< at most
  static constexpr unsigned blocks_at_once = Product::blocks_at_once;
  static constexpr bool waits_itself = true;
  const typename Product::stored* weight; ///< which no launch writes
  const float* x;
  std::int64_t outputs; ///< of y
  std::int64_t cols;
  std::int64_t rows;
  float* y;
  row_norm norm;
  product_end end;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const int count = Product::rows_of_block(static_cast<int>(warps_of(t)));
    const std::int64_t row = std::int64_t{t.block_x()} * count;
    const int at_once = end.is_gated ? Product::outputs / 2 : Product::outputs;
    const std::int64_t output = std::int64_t{t.block_y()} * at_once;
    const block_outputs own{output, at_once, outputs};
    Product all;
    all.add_up(
        t, rows - row, cols,
        [&](int o) { return weight + own.row_of(o) * cols; },
        [&](int r) { return x + (row + r < rows ? row + r : row) * cols; },
        [&](int o) {
          return end.scales + own.row_of(o) * ops::scales_of_cols(cols);
        },
        norm, [&] { t.wait_for_earlier(); });
    all.show(t, norm);
    for (int i = static_cast<int>(t.index()); i < count * at_once;
         i += static_cast<int>(t.count())) {
      const int r = i / at_once, o = i % at_once;
      if (row + r >= rows || output + o >= outputs)
        continue;
      float& to = y[(row + r) * outputs + output + o];
      to = end.is_gated ? gated(end.how, sum_of(t, own, r, o)) *
                              sum_of(t, own, r, at_once + o)
                        : end.ended(sum_of(t, own, r, o), output + o, to);
    }
  }

private:
  template <class Threads>
  TROUPE_KERNEL float sum_of(Threads& t, const block_outputs& own, int row,
                             int output) const {
    const float sum =
        scaled_sum_of<Product>(t, row, output, end.scales, own.row_of(output));
    return norm.weight == nullptr
               ? sum
               : sum * Product::factor_of(t, row, cols, norm);
  }
};

} // namespace troupe::cuda
