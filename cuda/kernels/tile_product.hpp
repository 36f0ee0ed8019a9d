#pragma once

#include "cuda/kernels/matrix_words.hpp"
#include "cuda/kernels/threads.hpp"
#include "engine/ops/tensor.hpp"

#include <cstdint>
#include <type_traits>

namespace troupe::cuda {

/// Warps of a block, which share the columns of its outputs.
inline constexpr int column_warps = 8;
/// Columns that a warp multiplies at once, eight of each fourth lane.
inline constexpr int tile_cols = 32;
/// Of a product of `fragments`.
inline constexpr int fragment_outputs = 8;
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

  /// Of a row of so many columns, from the sum of their squares.
  TROUPE_KERNEL float factor(float squares, std::int64_t cols) const {
    return 1.0f / sqrtf(squares / static_cast<float>(cols) + epsilon);
  }
};

/// Tiles of columns that a block has on their way from the memory, so that its
/// latency does not matter.
template <class Stored>
constexpr int tiles_at_once(int row_tiles, int output_tiles) {
  constexpr int size = sizeof(Stored);
  if (row_tiles > 2) // their sums take the registers
    return 1;
  if (row_tiles == 2)
    return size < 4 ? 2 : 1;
  // Where blocks have few outputs there may be few of them.
  const int bytes = output_tiles > 2 || size == 1 ? 32 << 10 : 64 << 10;
  return bytes /
         (column_warps * tile_cols * size * output_tiles * fragment_outputs);
}

/// The product of some rows and some outputs, before its warps are added up:
/// every lane of a warp has a part. A tile's rows are a matrix of 16: first
/// eight with the numbers as bf16, then the same ones with what that lacks, so
/// a row's sum is two until the end. Part p of a sum has the tiles of columns
/// p, p + 8, p + 16 and so on, in order, so a sum's order depends on nothing
/// but the column: a row's bits are the same in any company, and whether a warp
/// has one part or all of them.
template <class Stored, int RowTiles, int OutputTiles>
struct tile_product {
  using stored = Stored;
  static constexpr unsigned blocks_at_once = 2;
  static constexpr int rows = RowTiles * fragment_rows;
  static constexpr int outputs = OutputTiles * fragment_outputs;
  static constexpr int at_once = tiles_at_once<Stored>(RowTiles, OutputTiles);

  /// Of a row of a warp's sums; the end keeps banks apart.
  static constexpr int row_floats = outputs + 8;
  static constexpr std::size_t sum_floats =
      std::size_t{column_warps} * rows * row_floats;
  /// Before, where there are rows enough to wait for: those of a tile of
  /// columns that is multiplied, and of the next ones, which are on their way.
  /// A thread has what it reads itself, 16 bytes at a time.
  static constexpr bool stages_rows = RowTiles > 1;
  static constexpr int row_stages = 8 / RowTiles;
  static constexpr int threads = column_warps * static_cast<int>(warp_size);
  static constexpr std::size_t stage_floats =
      stages_rows ? std::size_t{RowTiles} * 2 * threads * 4 : 0;
  static constexpr std::size_t shared_floats =
      sum_floats > row_stages* stage_floats ? sum_floats
                                            : row_stages* stage_floats;
  /// Behind them, where rows are normed: of each row the lanes' parts.
  static constexpr int parts_of_row = 4 * column_warps;
  static constexpr std::size_t norm_floats = std::size_t{rows} * parts_of_row;

  /// Of outputs e * 8 + lane % 4 * 2 and that + 1, and row lane / 4 of each
  /// tile: of the numbers as bf16, then of what that lacks.
  using row_sums = fragments::sums[OutputTiles];
  row_sums sums[RowTiles];
  /// Of the columns that the lane saw of its row of each tile.
  float squares[RowTiles] = {};

  /// All warps have the same rows.
  static constexpr int warps_for(std::int64_t /*rows*/) {
    return column_warps;
  }
  static constexpr int rows_of_block(int /*warps*/) {
    return rows;
  }

  /// Adds up all, each warp a part of its own, as `add_part` says, of `count`
  /// rows that there are.
  template <class Threads, class WeightOf, class RowOf, class ScalesOf,
            class BeforeRows>
  TROUPE_KERNEL void add_up(Threads& t, std::int64_t /*count*/,
                            std::int64_t cols, WeightOf weight_of, RowOf row_of,
                            ScalesOf scales_of, const row_norm& norm,
                            BeforeRows before_rows) {
    add_part(t, warp_of(t), cols, weight_of, row_of, scales_of, norm,
             before_rows);
  }

  /// Adds up one part. `weight_of(o)` is where the weights of output o begin,
  /// `row_of(r)` where row r of x does. For those that there are not they give
  /// any that is there: a sum is of its own output and row alone.
  /// `scales_of(o)` is where the scales of output o's blocks are, if it has
  /// blocks. `norm` is that of the rows, but for their factors. `before_rows`
  /// is called once, when the first weights are on their way and no row was
  /// looked at.
  template <class Threads, class WeightOf, class RowOf, class ScalesOf,
            class BeforeRows>
  TROUPE_KERNEL void add_part(Threads& t, int part, std::int64_t cols,
                              WeightOf weight_of, RowOf row_of,
                              ScalesOf scales_of, const row_norm& norm,
                              BeforeRows before_rows) {
    const int lane = lane_of(t);
    const int first = part * tile_cols + lane % 4 * 8;
    lane_share own;
    own.part = part;
    own.cols = cols - first;
    TROUPE_UNROLL
    for (int e = 0; e < OutputTiles; ++e)
      own.outputs[e] = weight_of(e * fragment_outputs + lane / 4) + first;
    TROUPE_UNROLL
    for (int n = 0; n < RowTiles; ++n)
      own.rows[n] = row_of(n * fragment_rows + lane / 4) + first;
    own.norm = norm.weight == nullptr ? nullptr : norm.weight + first;
    if constexpr (is_in_blocks<Stored>) {
      own.scales = scales_of(0);
      TROUPE_UNROLL
      for (int e = 0; e < OutputTiles; ++e)
        TROUPE_UNROLL
      for (int i = 0; i < 2; ++i)
        own.scales_at[e][i] = static_cast<std::int32_t>(
            scales_of(e * fragment_outputs + lane % 4 * 2 + i) - own.scales);
    }
    TROUPE_UNROLL
    for (int n = 0; n < RowTiles; ++n)
      clear(sums[n]);
    // Then rows begin at multiples of 16 bytes.
    if (cols % 8 == 0)
      add_tiles<true>(t, own, cols, before_rows);
    else
      add_tiles<false>(t, own, cols, before_rows);
  }

  /// Shows the warps' parts to all threads, which may ask for `sum_of` then,
  /// and of normed rows for `factor_of`.
  template <class Threads>
  TROUPE_KERNEL void show(Threads& t, const row_norm& norm) const {
    const int warp = warp_of(t), lane = lane_of(t);
    if constexpr (stages_rows)
      t.sync(); // others' rows lie there
    TROUPE_UNROLL
    for (int n = 0; n < RowTiles; ++n) {
      const int row = n * fragment_rows + lane / 4;
      float* own = t.shared() + (warp * rows + row) * row_floats + lane % 4 * 2;
      TROUPE_UNROLL
      for (int e = 0; e < OutputTiles; ++e) {
        const float* of = sums[n][e];
        *reinterpret_cast<pack<float, 2>*>(own + e * fragment_outputs) = {
            {of[0] + of[2], of[1] + of[3]}};
      }
      if (norm.weight != nullptr)
        parts_of(t, row)[lane % 4 * column_warps + warp] = squares[n];
    }
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
    return norm.factor(all, cols);
  }

  /// The warps' parts are added in order.
  template <class Threads>
  TROUPE_KERNEL static float sum_of(Threads& t, int row, int output) {
    const float* first = t.shared() + row * row_floats + output;
    float sum = first[0];
    for (int w = 1; w < column_warps; ++w)
      sum += first[w * rows * row_floats];
    return sum;
  }

  template <class Threads>
  TROUPE_KERNEL static int warp_of(Threads& t) {
    return static_cast<int>(t.index() / warp_size);
  }
  template <class Threads>
  TROUPE_KERNEL static int lane_of(Threads& t) {
    return static_cast<int>(t.index() % warp_size);
  }

private:
  /// What a lane reads of outputs and rows, from its first column on.
  struct lane_share {
    int part;
    std::int64_t cols; ///< that there are; below 0, if its first is not
    const Stored* outputs[OutputTiles];
    const float* rows[RowTiles];
    const float* norm; ///< null: none
    /// Of outputs with blocks: where their scales are, from the first's on.
    const float* scales;
    std::int32_t scales_at[is_in_blocks<Stored> ? OutputTiles : 1][2];
  };

  /// What a lane has of a tile of columns.
  struct stored_tile {
    stored_eight<Stored> of[OutputTiles];
  };

  /// A row's numbers in a tile, and those of the norm.
  struct row_eight {
    stored_eight<float> x, by;
  };

  static constexpr int step = column_warps * tile_cols;

  /// All warps make as many steps, some of the last one's tiles perhaps of
  /// nothing. As soon as a tile is multiplied the one `ahead` steps on is asked
  /// for in its place.
  template <bool InEights, class Threads, class BeforeRows>
  TROUPE_KERNEL void add_tiles(Threads& t, const lane_share& own,
                               std::int64_t cols, BeforeRows before_rows) {
    constexpr int ahead = InEights ? at_once : 1;
    stored_tile tiles[ahead] = {};
    TROUPE_UNROLL
    for (int s = 0; s < ahead; ++s)
      ask_for<InEights>(own, s * step, tiles[s]);
    before_rows();
    row_reader<InEights> rows_of_tile;
    rows_of_tile.begin(t, own);
    for (std::int64_t first = 0; first < cols; first += step * ahead) {
      TROUPE_UNROLL
      for (int s = 0; s < ahead; ++s) {
        const std::int64_t begin = first + s * step;
        if (begin >= cols)
          break;
        rows_of_tile.next_tile(t, own, begin);
        TROUPE_UNROLL
        for (int n = 0; n < RowTiles; ++n) {
          const auto row = rows_of_tile.words(t, own, begin, n, squares[n]);
          if constexpr (is_in_blocks<Stored>) {
            row_sums of_tile;
            clear(of_tile);
            multiply(t, tiles[s], row, of_tile);
            const std::int64_t k = begin + own.part * tile_cols;
            if (k < cols)
              add_scaled(own, of_tile, k, sums[n]);
          } else {
            multiply(t, tiles[s], row, sums[n]);
          }
        }
        ask_for<InEights>(own, begin + step * ahead, tiles[s]);
      }
    }
    if constexpr (stages_rows)
      t.template wait_copies<0>(); // of nothing, behind the last tile
  }

  /// The rows' numbers, a tile of columns after the other: those of the next
  /// ones are under way while one is multiplied.
  template <bool InEights>
  struct row_reader {
    static constexpr bool stages = stages_rows && InEights;
    row_eight held;

    /// The first tiles are asked for.
    template <class Threads>
    TROUPE_KERNEL void begin(Threads& t, const lane_share& own) {
      if constexpr (stages) {
        TROUPE_UNROLL
        for (int s = 0; s < row_stages - 1; ++s)
          stage(t, own, s * step);
      } else if constexpr (RowTiles == 1) {
        ask_for_row<InEights>(own, 0, 0, held);
      }
    }

    /// `begin`: where the tile is.
    template <class Threads>
    TROUPE_KERNEL void next_tile(Threads& t, const lane_share& own,
                                 std::int64_t begin) {
      if constexpr (stages) {
        stage(t, own, begin + step * (row_stages - 1));
        t.template wait_copies<row_stages - 1>();
        if (own.norm != nullptr)
          read_row<InEights>(own, own.norm, begin, held.by);
      }
    }

    /// Of the tile, each row once; adds up squares of those that are normed.
    template <class Threads>
    TROUPE_KERNEL matrix_words<float> words(Threads& t, const lane_share& own,
                                            std::int64_t begin, int n,
                                            float& squares) {
      if constexpr (stages) {
        TROUPE_UNROLL
        for (int half = 0; half < 2; ++half) {
          const auto some = *stage_of(t, begin, n, half);
          TROUPE_UNROLL
          for (int i = 0; i < 4; ++i)
            held.x.at[4 * half + i] = some.at[i];
        }
      } else if constexpr (RowTiles > 1) {
        ask_for_row<InEights>(own, n, begin, held);
      }
      const auto out = words_of(own, held, squares);
      if constexpr (RowTiles == 1)
        ask_for_row<InEights>(own, n, begin + step, held);
      return out;
    }

  private:
    using quarter = pack<std::uint32_t, 4>;

    template <class Threads>
    TROUPE_KERNEL static quarter* stage_of(Threads& t, std::int64_t begin,
                                           int n, int half) {
      const auto stage = static_cast<int>(begin / step % row_stages);
      return reinterpret_cast<quarter*>(t.shared() + stage * stage_floats) +
             (2 * n + half) * threads + t.index();
    }

    /// Asks for the rows of a tile, 0 where there are no columns.
    template <class Threads>
    TROUPE_KERNEL static void stage(Threads& t, const lane_share& own,
                                    std::int64_t begin) {
      const bool is_there = begin < own.cols;
      const std::int64_t at = is_there ? begin : 0;
      TROUPE_UNROLL
      for (int n = 0; n < RowTiles; ++n)
        TROUPE_UNROLL
      for (int half = 0; half < 2; ++half)
        t.copy_async(stage_of(t, begin, n, half), own.rows[n] + at + 4 * half,
                     is_there);
      t.commit_copies();
    }
  };

  /// Of columns that there are not, some lanes keep what they had of others:
  /// that is multiplied by the rows' zeros. (So an output whose weights are not
  /// all finite is one of many that mean nothing.)
  template <bool InEights>
  TROUPE_KERNEL static void ask_for(const lane_share& own, std::int64_t begin,
                                    stored_tile& to) {
    TROUPE_UNROLL
    for (int e = 0; e < OutputTiles; ++e)
      if constexpr (!InEights)
        to.of[e].read(own.outputs[e] + begin, own.cols - begin);
      else if (begin < own.cols)
        to.of[e].read_whole(own.outputs[e] + begin);
  }

  template <bool InEights>
  TROUPE_KERNEL static void ask_for_row(const lane_share& own, int n,
                                        std::int64_t begin, row_eight& to) {
    read_row<InEights>(own, own.rows[n], begin, to.x);
    if (own.norm != nullptr)
      read_row<InEights>(own, own.norm, begin, to.by);
  }

  /// The eight columns of a lane that are so many further on; 0 where there
  /// are none.
  template <bool InEights>
  TROUPE_KERNEL static void read_row(const lane_share& own, const float* from,
                                     std::int64_t begin,
                                     stored_eight<float>& to) {
    if constexpr (!InEights)
      to.read(from + begin, own.cols - begin);
    else if (begin < own.cols)
      to.read_whole(from + begin);
    else
      to = {};
  }

  /// Of a normed row, whose squares are added up on the way.
  TROUPE_KERNEL static matrix_words<float>
  words_of(const lane_share& own, const row_eight& of, float& squares) {
    float x[8];
    TROUPE_UNROLL
    for (int i = 0; i < 8; ++i)
      x[i] = of.x.number(i);
    if (own.norm != nullptr)
      TROUPE_UNROLL
    for (int i = 0; i < 8; ++i) {
      squares = fmaf(x[i], x[i], squares);
      x[i] *= of.by.number(i);
    }
    return matrix_words<float>{x};
  }

  template <class Threads>
  TROUPE_KERNEL static void multiply(Threads& t, const stored_tile& w,
                                     const matrix_words<float>& row,
                                     row_sums& to) {
    TROUPE_UNROLL
    for (int e = 0; e < OutputTiles; ++e) {
      const matrix_words<Stored> of_output{w.of[e]};
      TROUPE_UNROLL
      for (int i = 0; i < 4; i += 2) {
        const fragments::a both{row.high[i], row.low[i], row.high[i + 1],
                                row.low[i + 1]};
        if constexpr (matrix_words<Stored>::is_split)
          t.template multiply_add<bf16>(
              to[e], both, {of_output.low[i], of_output.low[i + 1]});
        t.template multiply_add<bf16>(
            to[e], both, {of_output.high[i], of_output.high[i + 1]});
      }
    }
  }

  /// Of the tile of columns that begins at k.
  TROUPE_KERNEL static void add_scaled(const lane_share& own,
                                       const row_sums& of_tile, std::int64_t k,
                                       row_sums& to) {
    const float* of_block = own.scales + k / ops::scale_cols;
    TROUPE_UNROLL
    for (int e = 0; e < OutputTiles; ++e)
      TROUPE_UNROLL
    for (int i = 0; i < 2; ++i)
      to[e][i] = fmaf(of_tile[e][i] + of_tile[e][i + 2],
                      of_block[own.scales_at[e][i]], to[e][i]);
  }

  template <class Threads>
  TROUPE_KERNEL static float* parts_of(Threads& t, int row) {
    return t.shared() + shared_floats + row * parts_of_row;
  }

  TROUPE_KERNEL static void clear(row_sums& to) {
    TROUPE_UNROLL
    for (int e = 0; e < OutputTiles; ++e)
      TROUPE_UNROLL
    for (int i = 0; i < 4; ++i)
      to[e][i] = 0;
  }
};

/// Tiles of outputs of a block: few, so that there are more blocks, or as many
/// as a thread has registers for.
inline constexpr int few_output_tiles = 2;
template <class Stored, int RowTiles>
inline constexpr int most_output_tiles =
    RowTiles > 2 && (matrix_words<Stored>::is_split || is_in_blocks<Stored>)
        ? few_output_tiles
        : 4;

} // namespace troupe::cuda
