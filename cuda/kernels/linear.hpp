#pragma once

#include "cuda/kernels/matrix_words.hpp"
#include "cuda/kernels/rows.hpp"
#include "engine/ops/tensor.hpp"

#include <type_traits>

namespace troupe::cuda {

/// Warps of a block, which share the columns of its outputs.
inline constexpr int column_warps = 8;
/// Columns that a warp multiplies at once, eight of each fourth lane.
inline constexpr int tile_cols = 32;
inline constexpr int fragment_outputs = 16; ///< of `fragments`
inline constexpr int fragment_rows = 8;

/// Whether outputs have scales of blocks of columns, by which what a warp has
/// of a tile of columns is multiplied before it is added.
template <class Stored>
inline constexpr bool is_in_blocks = std::is_same_v<Stored, block_e4m3>;
static_assert(ops::scale_cols % tile_cols == 0);

/// How rows are normed on their way into a product (ops::backend::rms_norm):
/// their numbers are multiplied by the weight's, and sums at last by the row's
/// factor.
struct row_norm {
  const float* weight = nullptr; ///< null: they are not
  float epsilon = 0;
};

/// The product of some rows and some outputs, before its warps are added up:
/// every lane of a warp has a part, as `fragments::sums` says, outputs before
/// rows. Warp w takes the tiles of columns w, w + 8, w + 16 and so on, in
/// order, so a sum's order depends on nothing but the column: a row's bits are
/// the same in any company.
template <class Stored, int RowTiles, int OutputTiles>
struct tile_product {
  static constexpr int rows = RowTiles * fragment_rows;
  static constexpr int outputs = OutputTiles * fragment_outputs;
  /// Tiles of columns whose numbers are read before the first is multiplied:
  /// enough reads are under way for the memory's latency, of few rows 32 KB in
  /// a block.
  static constexpr int at_once =
      RowTiles == 1 ? 8 / OutputTiles / static_cast<int>(sizeof(Stored))
      : matrix_words<Stored>::is_split || is_in_blocks<Stored> ? 1
                                                               : 2;

  static constexpr std::size_t shared_floats =
      std::size_t{column_warps} * rows * outputs;
  /// Behind them, where rows are normed: of each row the lanes' parts.
  static constexpr int parts_of_row = 4 * column_warps;
  static constexpr std::size_t norm_floats = std::size_t{rows} * parts_of_row;

  using all_sums = fragments::sums[OutputTiles][RowTiles];
  all_sums sums;
  /// Of the columns that the lane saw of its row of each tile.
  float squares[RowTiles] = {};

  /// `weight_of(o)` is where the weights of output o begin, `row_of(r)` where
  /// row r of x does. For those that there are not they give any that is there:
  /// a sum is of its own output and row alone. `scales_of(o)` is where the
  /// scales of output o's blocks are, if it has blocks. `norm` is that of the
  /// rows, but for their factors. `before_rows` is called once, when the first
  /// weights are on their way and no row was looked at.
  template <class Threads, class WeightOf, class RowOf, class ScalesOf,
            class BeforeRows>
  TROUPE_KERNEL void add_up(Threads& t, std::int64_t cols, WeightOf weight_of,
                            RowOf row_of, ScalesOf scales_of,
                            const row_norm& norm, BeforeRows before_rows) {
    const int warp = static_cast<int>(t.index() / warp_size);
    const int lane = static_cast<int>(t.index() % warp_size);
    const float* x[RowTiles];
    TROUPE_UNROLL
    for (int n = 0; n < RowTiles; ++n)
      x[n] = row_of(n * fragment_rows + lane / 4);
    clear(sums);
    const Stored* of_outputs[OutputTiles][2];
    TROUPE_UNROLL
    for (int m = 0; m < OutputTiles; ++m)
      TROUPE_UNROLL
    for (int half = 0; half < 2; ++half)
      of_outputs[m][half] =
          weight_of(m * fragment_outputs + half * 8 + lane / 4);
    constexpr int step = column_warps * tile_cols;
    // Then rows begin at multiples of 16 bytes.
    const bool in_eights = cols % 8 == 0;
    // All warps make as many steps, some of the last one's tiles perhaps of
    // nothing.
    for (std::int64_t begin = 0; begin < cols; begin += step * at_once) {
      matrix_words<Stored> w[at_once][OutputTiles][2];
      TROUPE_UNROLL
      for (int s = 0; s < at_once; ++s) {
        if (begin + s * step >= cols)
          break;
        const std::int64_t k =
            begin + s * step + warp * tile_cols + lane % 4 * 8;
        const bool whole = in_eights && begin + (s + 1) * step <= cols;
        TROUPE_UNROLL
        for (int m = 0; m < OutputTiles; ++m)
          TROUPE_UNROLL
        for (int half = 0; half < 2; ++half)
          read(w[s][m][half], of_outputs[m][half], k, cols, whole);
      }
      if (begin == 0)
        before_rows();
      TROUPE_UNROLL
      for (int s = 0; s < at_once; ++s) {
        if (begin + s * step >= cols)
          break;
        const std::int64_t k =
            begin + s * step + warp * tile_cols + lane % 4 * 8;
        const bool whole = in_eights && begin + (s + 1) * step <= cols;
        if constexpr (is_in_blocks<Stored>) {
          all_sums of_tile;
          clear(of_tile);
          multiply(t, w[s], x, norm, k, cols, whole, of_tile);
          add_scaled(of_tile, begin + s * step + warp * tile_cols, cols,
                     [&](int o) { return scales_of(o + lane / 4); });
        } else {
          multiply(t, w[s], x, norm, k, cols, whole, sums);
        }
      }
    }
  }

  /// Shows the warps' parts to all threads, which may ask for `sum_of` then,
  /// and of normed rows for `factor_of`.
  template <class Threads>
  TROUPE_KERNEL void show(Threads& t, const row_norm& norm) const {
    const int warp = static_cast<int>(t.index() / warp_size);
    const int lane = static_cast<int>(t.index() % warp_size);
    float* own = t.shared() + warp * rows * outputs;
    TROUPE_UNROLL
    for (int m = 0; m < OutputTiles; ++m)
      TROUPE_UNROLL
    for (int n = 0; n < RowTiles; ++n)
      TROUPE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int o = m * fragment_outputs + lane / 4 + i / 2 * 8;
      const int r = n * fragment_rows + lane % 4 * 2 + i % 2;
      own[r * outputs + o] = sums[m][n][i];
    }
    if (norm.weight != nullptr)
      TROUPE_UNROLL
    for (int n = 0; n < RowTiles; ++n)
      parts_of(t, n * fragment_rows +
                      lane / 4)[lane % 4 * column_warps + warp] = squares[n];
    t.sync();
  }

  /// Of a row that was normed.
  template <class Threads>
  TROUPE_KERNEL static float factor_of(Threads& t, int row, std::int64_t cols,
                                       const row_norm& norm) {
    const float* parts = parts_of(t, row);
    float all = 0;
    TROUPE_UNROLL
    for (int lane = 0; lane < 4; ++lane) {
      float of_lane = 0;
      TROUPE_UNROLL
      for (int w = 0; w < column_warps; ++w)
        of_lane += parts[lane * column_warps + w];
      all += of_lane;
    }
    return 1.0f / sqrtf(all / static_cast<float>(cols) + norm.epsilon);
  }

  /// The warps' parts are added in order.
  template <class Threads>
  TROUPE_KERNEL static float sum_of(Threads& t, int row, int output) {
    const float* first = t.shared() + row * outputs + output;
    float sum = first[0];
    for (int w = 1; w < column_warps; ++w)
      sum += first[w * rows * outputs];
    return sum;
  }

  /// The same, times the scale of the weight's row, if rows have one each.
  template <class Threads>
  TROUPE_KERNEL static float scaled_sum_of(Threads& t, int row, int output,
                                           const float* scales,
                                           std::int64_t weight_row) {
    const float sum = sum_of(t, row, output);
    return is_in_blocks<Stored> || scales == nullptr ? sum
                                                     : sum * scales[weight_row];
  }

private:
  template <class Threads>
  TROUPE_KERNEL static float* parts_of(Threads& t, int row) {
    return t.shared() + shared_floats + row * parts_of_row;
  }

  TROUPE_KERNEL static void clear(all_sums& to) {
    TROUPE_UNROLL
    for (int m = 0; m < OutputTiles; ++m)
      TROUPE_UNROLL
    for (int n = 0; n < RowTiles; ++n)
      TROUPE_UNROLL
    for (int i = 0; i < 4; ++i)
      to[m][n][i] = 0;
  }

  /// Of the tile of columns that begins at k, which may be beyond the last:
  /// then its sums are 0.
  template <class ScalesOf>
  TROUPE_KERNEL void add_scaled(const all_sums& of_tile, std::int64_t k,
                                std::int64_t cols, ScalesOf scales_of) {
    TROUPE_UNROLL
    for (int m = 0; m < OutputTiles; ++m)
      TROUPE_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float* scales = scales_of(m * fragment_outputs + half * 8);
      const float scale = k < cols ? scales[k / ops::scale_cols] : 0.0f;
      TROUPE_UNROLL
      for (int n = 0; n < RowTiles; ++n)
        TROUPE_UNROLL
      for (int i = 2 * half; i < 2 * half + 2; ++i)
        sums[m][n][i] = fmaf(of_tile[m][n][i], scale, sums[m][n][i]);
    }
  }

  /// `whole`: all columns of the block's tile are there, which all threads know
  /// without a look at their own.
  template <class Number>
  TROUPE_KERNEL static void read(matrix_words<Number>& to, const Number* row,
                                 std::int64_t k, std::int64_t cols,
                                 bool whole) {
    if (whole || (cols % 8 == 0 && k < cols))
      to.read_whole(row + k);
    else
      to.read(row, k, cols);
  }

  /// The same of a row, by the norm's weights; its squares are added up.
  TROUPE_KERNEL static void read_normed(matrix_words<float>& to,
                                        const float* row, const float* weights,
                                        std::int64_t k, std::int64_t cols,
                                        bool whole, float& squares) {
    float some[8], by[8];
    if (whole || (cols % 8 == 0 && k < cols)) {
      read_floats<8>(row + k, some);
      read_floats<8>(weights + k, by);
    } else {
      TROUPE_UNROLL
      for (int i = 0; i < 8; ++i) {
        some[i] = k + i < cols ? row[k + i] : 0.0f;
        by[i] = k + i < cols ? weights[k + i] : 0.0f;
      }
    }
    TROUPE_UNROLL
    for (int i = 0; i < 8; ++i) {
      squares = fmaf(some[i], some[i], squares);
      some[i] *= by[i];
    }
    to.set(some);
  }

  template <class Threads>
  TROUPE_KERNEL void
  multiply(Threads& t, const matrix_words<Stored> (&w)[OutputTiles][2],
           const float* const (&x)[RowTiles], const row_norm& norm,
           std::int64_t k, std::int64_t cols, bool whole, all_sums& to) {
    TROUPE_UNROLL
    for (int n = 0; n < RowTiles; ++n) {
      matrix_words<float> row;
      if (norm.weight != nullptr)
        read_normed(row, x[n], norm.weight, k, cols, whole, squares[n]);
      else
        read(row, x[n], k, cols, whole);
      TROUPE_UNROLL
      for (int m = 0; m < OutputTiles; ++m)
        TROUPE_UNROLL
      for (int i = 0; i < 4; i += 2) {
        const auto& top = w[m][0];
        const auto& bottom = w[m][1];
        const fragments::a a{top.high[i], bottom.high[i], top.high[i + 1],
                             bottom.high[i + 1]};
        const fragments::b high{row.high[i], row.high[i + 1]};
        const fragments::b low{row.low[i], row.low[i + 1]};
        t.template multiply_add<bf16>(to[m][n], a, low);
        if constexpr (matrix_words<Stored>::is_split) {
          const fragments::a rest{top.low[i], bottom.low[i], top.low[i + 1],
                                  bottom.low[i + 1]};
          t.template multiply_add<bf16>(to[m][n], rest, high);
        }
        t.template multiply_add<bf16>(to[m][n], a, high);
      }
    }
  }
};

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
};

/// y[r][o] = sum_i x[r][i] * w[o][i], for some rows (block_x) and outputs
/// (block_y). Numbers are multiplied as bf16, in two parts where they have more
/// bits than that: what is lost is below 2^-16 of a number.
template <class Stored, int RowTiles, int OutputTiles>
struct linear_kernel {
  static constexpr bool collective = true;
  static constexpr unsigned threads = column_warps * warp_size;
  static constexpr unsigned blocks_at_once = 2;
  static constexpr bool waits_itself = true;
  using tiles = tile_product<Stored, RowTiles, OutputTiles>;
  const Stored* weight; ///< which no launch writes
  const float* x;
  std::int64_t outputs; ///< of y
  std::int64_t cols;
  std::int64_t rows;
  float* y;
  row_norm norm;
  product_end end;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const std::int64_t row = std::int64_t{t.block_x()} * tiles::rows;
    const int at_once = end.is_gated ? tiles::outputs / 2 : tiles::outputs;
    const std::int64_t output = std::int64_t{t.block_y()} * at_once;
    const block_outputs own{output, at_once, outputs};
    tiles all;
    all.add_up(
        t, cols, [&](int o) { return weight + own.row_of(o) * cols; },
        [&](int r) { return x + (row + r < rows ? row + r : row) * cols; },
        [&](int o) {
          return end.scales + own.row_of(o) * ops::scales_of_cols(cols);
        },
        norm, [&] { t.wait_for_earlier(); });
    all.show(t, norm);
    for (int i = static_cast<int>(t.index()); i < tiles::rows * at_once;
         i += static_cast<int>(t.count())) {
      const int r = i / at_once, o = i % at_once;
      if (row + r >= rows || output + o >= outputs)
        continue;
      float& to = y[(row + r) * outputs + output + o];
      to = end.is_gated ? gated(end.how, sum_of(t, r, o, output + o)) *
                              sum_of(t, r, at_once + o, outputs + output + o)
                        : ended(sum_of(t, r, o, output + o), output + o, to);
    }
  }

private:
  /// Of a tile's output, which is so many'th of the weight's rows.
  template <class Threads>
  TROUPE_KERNEL float sum_of(Threads& t, int row, int output,
                             std::int64_t weight_row) const {
    const float sum =
        tiles::scaled_sum_of(t, row, output, end.scales, weight_row);
    return norm.weight == nullptr ? sum
                                  : sum * tiles::factor_of(t, row, cols, norm);
  }

  TROUPE_KERNEL float ended(float sum, std::int64_t output,
                            const float& there) const {
    if (end.adds)
      sum = there + sum;
    return end.bias != nullptr ? sum + end.bias[output] : sum;
  }
};

} // namespace troupe::cuda
