#pragma once

#include "cuda/kernels/tile_product.hpp"

namespace troupe::cuda {

/// What tile_product is, of more rows, to the bit: a block's warps have rows of
/// their own, each of them all parts of its sums, one after the other. So a
/// block reads its weights once for many more rows, from its multiprocessor's
/// cache all but the first time, and rows once for twice as many outputs.
template <class Stored>
struct many_rows_product {
  using stored = Stored;
  static constexpr unsigned blocks_at_once = 1;
  static constexpr int row_tiles = 2,
                       output_tiles = matrix_words<Stored>::is_split ||
                                              is_in_blocks<Stored>
                                          ? 4
                                          : 8;
  /// Of a warp.
  using tiles = tile_product<Stored, row_tiles, output_tiles>;
  static constexpr int rows = column_warps * tiles::rows; ///< at most
  static constexpr int outputs = tiles::outputs;

  /// Of a row of sums; the end keeps banks apart. They lie where the rows'
  /// stages were.
  static constexpr int row_floats = outputs + 8;
  static constexpr std::size_t sum_floats = std::size_t{rows} * row_floats;
  static constexpr std::size_t shared_floats =
      sum_floats > tiles::shared_floats ? sum_floats : tiles::shared_floats;
  /// Behind them, where rows are normed: of each row its four lanes' squares.
  static constexpr std::size_t norm_floats = std::size_t{rows} * 4;

  float sums[row_tiles][output_tiles][2] = {};
  float squares[row_tiles] = {};

  /// Of a block, which may have fewer warps than it can, for so many rows.
  static constexpr int warps_for(std::int64_t rows_of_all) {
    const auto wanted = (rows_of_all + tiles::rows - 1) / tiles::rows;
    return wanted < column_warps ? static_cast<int>(wanted) : column_warps;
  }
  static constexpr int rows_of_block(int warps) {
    return warps * tiles::rows;
  }

  /// Warps whose rows are not among the `count` that there are add up nothing.
  template <class Threads, class WeightOf, class RowOf, class ScalesOf,
            class BeforeRows>
  TROUPE_KERNEL void add_up(Threads& t, std::int64_t count, std::int64_t cols,
                            WeightOf weight_of, RowOf row_of,
                            ScalesOf scales_of, const row_norm& norm,
                            BeforeRows before_rows) {
    const int own_row = first_row(t);
    if (own_row >= count)
      return before_rows();
    for (int part = 0; part < column_warps; ++part) {
      tiles some;
      some.add_part(
          t, part, cols, weight_of, [&](int r) { return row_of(own_row + r); },
          scales_of, norm,
          [&] {
            if (part == 0)
              before_rows();
          });
      TROUPE_UNROLL
      for (int n = 0; n < row_tiles; ++n) {
        squares[n] += some.squares[n];
        TROUPE_UNROLL
        for (int e = 0; e < output_tiles; ++e)
          TROUPE_UNROLL
        for (int i = 0; i < 2; ++i)
          sums[n][e][i] += some.sums[n][e][i] + some.sums[n][e][i + 2];
      }
    }
  }

  template <class Threads>
  TROUPE_KERNEL void show(Threads& t, const row_norm& norm) const {
    const int lane = tiles::lane_of(t);
    t.sync(); // others' rows lie there
    TROUPE_UNROLL
    for (int n = 0; n < row_tiles; ++n) {
      const int row = first_row(t) + n * fragment_rows + lane / 4;
      float* own = t.shared() + row * row_floats + lane % 4 * 2;
      TROUPE_UNROLL
      for (int e = 0; e < output_tiles; ++e)
        *reinterpret_cast<pack<float, 2>*>(own + e * fragment_outputs) = {
            {sums[n][e][0], sums[n][e][1]}};
      if (norm.weight != nullptr)
        squares_of(t, row)[lane % 4] = squares[n];
    }
    t.sync();
  }

  template <class Threads>
  TROUPE_KERNEL static float sum_of(Threads& t, int row, int output) {
    return t.shared()[row * row_floats + output];
  }

  /// In the order of tile_product::factor_of.
  template <class Threads>
  TROUPE_KERNEL static float factor_of(Threads& t, int row, std::int64_t cols,
                                       const row_norm& norm) {
    const float* lanes = squares_of(t, row);
    float all = 0;
    TROUPE_UNROLL
    for (int lane = 0; lane < 4; ++lane)
      all += lanes[lane];
    return norm.factor(all, cols);
  }

private:
  template <class Threads>
  TROUPE_KERNEL static int first_row(Threads& t) {
    return tiles::warp_of(t) * tiles::rows;
  }

  template <class Threads>
  TROUPE_KERNEL static float* squares_of(Threads& t, int row) {
    return t.shared() + shared_floats + row * 4;
  }
};

} // namespace troupe::cuda
