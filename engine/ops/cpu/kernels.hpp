#pragma once

#include "engine/ops/cpu/tile_format.hpp"

#include <cstddef>
#include <cstdint>

/// The arithmetic of the CPU backend: small kernels, one table of them per
/// instruction set. All tables give the same bits (NaN payloads aside), since
/// every operation below is either exact or stands in one written-down order.
/// "Lane" l of 16 is element l of a vector; fma(a, b, c) rounds a * b + c once.
///
/// This header is seen by files that are compiled for AVX-512, so it holds no
/// inline function that another file could end up calling.
namespace troupe::ops::cpu {

/// Rows of activations that are packed together.
constexpr int group_rows = 16;
/// Queries that one attention tile holds at most: over keys and values in f16,
/// and in bf16.
constexpr int query_tile = 6;
constexpr int rounded_query_tile = group_rows;
/// Positions of an attention span: a softmax is taken span by span, from
/// position 0 on, and the spans are merged in ascending order.
constexpr int span_positions = 256;

/// What a product needs of a block of 32 activations beside its int8 values q,
/// which are x / d rounded half to even, within -127 and 127:
///   a = max |x|;  d = a / 127;  q = round(x * (127 / a))
/// A block with a < 2^-100 counts as zeros (d = 0, q = 0). One with an infinity
/// or a NaN has d = NaN and q = 0, so all that is computed from it is NaN.
struct block_scale {
  float d;
  float d_sum;            ///< d * sum(q)
  std::int32_t minus_8;   ///< -8 * sum(q)
  std::int32_t minus_128; ///< -128 * sum(q)
  std::int16_t sums[2];   ///< sums of q over columns 0-15 and 16-31
};

/// Up to `group_rows` rows of quantised activations, block after block.
struct quantised_group {
  const std::int8_t* q;     ///< [block][rows][32]
  const block_scale* scale; ///< [block][rows]
  int rows;
};

/// Rows of activations for weights in bf16: rounded to bf16, half to even, what
/// is below 2^-56 to 0, and filled up with zeros to blocks of 32 columns.
/// Groups of `group_rows` rows one after the other, each [block][rows][32]; how
/// a number lies there is the table's own (rounded_bytes). `rounded_slack`
/// bytes behind the last can be read.
struct rounded_rows {
  const std::byte* x;
  std::int64_t rows;
  std::int64_t blocks;
};
constexpr std::size_t rounded_slack = 1024;

/// Where the outputs of one weight tile go: y[row * stride + lane] for
/// lane < lanes. With `add`, y = y + sum.
struct tile_output {
  float* y;
  std::int64_t stride;
  int lanes;
  bool add;
};

/// Sums for the 16 outputs of a tile, over the blocks from the first to the
/// last; every output has one accumulator s per row, from 0. Per block of 32
/// columns, by the form of the scales (tile_format.hpp), w being the weight's
/// integer, p and m a super-block's small scale and minimum for these columns:
///   half, half_minimum:
///     i = sum(w * q);  s = fma(float(i), scale * d, s)
///     with a minimum then: s = fma(minimum, d_sum, s)
///   byte_minimum:
///     i = sum(w * q);  s = fma(float(i), (scale * p) * d, s)
///     s = fma(-(minimum * m), d_sum, s)
///   two_bytes, two_nibbles, whose p and m differ between columns 0-15 and
///   16-31:
///     i = sum(p * w * q);  s = fma(float(i), scale * d, s)
///     with minimums then:
///     j = sum(m * q);  s = fma(-float(j), minimum * d, s)
/// i and j are exact and below 2^24, so float(i) and scale * p are exact too.
using quantised_tile = void (*)(const std::byte* tile, std::int64_t blocks,
                                const quantised_group&, const tile_output&);

/// The same for a tile of floats stored [column][16 outputs]:
///   s = fma(float(w), x, s), column after column.
/// `x` holds `rows` rows of `columns` floats.
using float_tile = void (*)(const std::byte* tile, std::int64_t columns,
                            const float* x, std::int64_t rows,
                            const tile_output&);

/// The same for tiles in bf16 (bf16_tile.hpp), `tiles` of them, one after the
/// other in memory and in `out`, whose `lanes` are those of the last. Per block
/// of 32 columns:
///   even = sum of fma(w, x, even) over columns 0, 2, ... 30, from 0
///   odd = the same over columns 1, 3, ... 31
///   s = s + (even + odd)
/// That is what an Intel matrix unit's TDPBF16PS computes. No sum here is
/// subnormal, which it would take for 0: weights too are 0 below 2^-56.
using rounded_tiles = void (*)(const std::byte* tile, int tiles,
                               const rounded_rows&, const tile_output& out);

/// One row: out = f(gate) * up, of n elements each.
using gated_row = void (*)(const float* gate, const float* up, std::int64_t n,
                           float* out);

/// `rounded_tiles` of gates and of what they gate, then f(gate) * up into
/// `out`, whose `add` is false.
using gated_tiles = void (*)(const std::byte* gates, const std::byte* ups,
                             int tiles, const rounded_rows&, gated_row f,
                             const tile_output& out);

/// Some queries of one kv head against the positions of one span.
struct attention_span {
  const float* queries[query_tile]; ///< [head_dim] each, for f16
  const std::byte* rounded;         ///< for bf16: a group as in rounded_rows
  int first[rounded_query_tile];    ///< first position of the span each sees
  int visible[rounded_query_tile];  ///< one more than the last that each sees
  int count;                        ///< queries
  int head_dim;                     ///< a multiple of 16
  float scale;                      ///< of the scores
  float soft_cap;                   ///< 0: none
  /// Per 16 positions. f16: keys [head_dim][16], values [16][head_dim]. bf16,
  /// in pairs of neighbours: keys [head_dim / 2][16][2], values
  /// [8][head_dim][2], none of which is NaN or infinite.
  const std::uint16_t* keys[span_positions / 16];
  const std::uint16_t* values[span_positions / 16];
  /// Per query: the largest score, the sum of weights, then the [head_dim]
  /// weighted sum of values. What a query with visible <= first gets is
  /// undefined.
  float* partial[rounded_query_tile];
};
constexpr int partial_header = 2;

struct kernel_table {
  /// Packs `rows` <= group_rows rows of `blocks` * 32 floats.
  void (*quantise)(const float* x, int rows, std::int64_t blocks,
                   std::int8_t* q, block_scale* scale);

  quantised_tile quantised[quantised_formats]; ///< as tile_formats
  float_tile f32;
  float_tile f16;

  /// Packs `rows` <= group_rows rows of `columns` floats as rounded_rows says,
  /// in numbers of `rounded_bytes` bytes.
  void (*round)(const float* x, int rows, std::int64_t columns, std::byte* out);
  int rounded_bytes;
  rounded_tiles bf16;
  gated_tiles bf16_gated; ///< null: one after the other is as fast

  /// One row. Squares are summed with fma in 16 lanes (column i in lane
  /// i % 16), the lanes as a tree: l with l + 8, + 4, + 2, + 1. Then
  /// out = (x * (1 / sqrt(sum / columns + eps))) * w.
  void (*rms_norm)(const float* x, const float* w, float eps,
                   std::int64_t columns, float* out);

  /// One row: out = (g / (1 + exp(0 - g))) * up.
  gated_row silu_mul;

  /// Scores: s = sum of fma(q, k) over the dimensions in order, times scale;
  /// with a soft cap c then s = tanh(s / c) * c.
  /// Weights: exp(s - max), summed in 16 lanes (position % 16) and the tree
  /// above. Values: fma(weight, v), position after position. Positions that a
  /// query does not see are not in its sums.
  void (*attend)(const attention_span&);

  /// The same over bf16. Scores: blocks of 32 dimensions, of which the last may
  /// have 16, are added as rounded_tiles says. Weights are rounded to bf16 (0
  /// below 2^-56) before they are summed. Values: blocks of 16 positions are
  /// added likewise, positions that a query does not see with the weight 0.
  void (*attend_rounded)(const attention_span&);

  /// Merges the partials of spans 0 to spans - 1, `stride` floats apart:
  /// m = largest maximum; f = exp(maximum - m); total and values are summed
  /// with fma(f, partial, sum) span after span; out = values / total.
  void (*merge)(const float* partials, std::int64_t stride, std::int64_t spans,
                int head_dim, float* out);

  /// Rounds to f16, half to even.
  void (*to_f16)(const float* x, std::int64_t n, std::uint16_t* out);

  /// Rounds to bf16, half to even, what is below 2^-56 to 0; n is a multiple of
  /// 16.
  void (*to_bf16)(const float* x, std::int64_t n, std::uint16_t* out);

  /// e to the power of each x, as silu_mul and attend compute it: relative
  /// error below 2e-7; 0 below -87.33, infinite above 88.37.
  void (*exp)(const float* x, std::int64_t n, float* out);

  /// One row: out = (g / (1 + exp(0 - 2u))) * up, which is GELU in its tanh
  /// form; u = (c * g) * fma(0.044715 * g, g, 1), c = sqrt(2 / pi).
  gated_row gelu_mul;

  /// One row: y = fma(factor, x, y).
  void (*add_scaled)(const float* x, float factor, std::int64_t n, float* y);

  /// One row: x = x * factor.
  void (*scale)(float* x, float factor, std::int64_t n);

  /// One row: x = tanh(x / cap) * cap, tanh within 5e-7 relative: where
  /// x^2 < 1/16 its Taylor polynomial of degree 9, else
  /// 1 - 2 / (exp(x + x) + 1).
  void (*soft_cap)(float* x, float cap, std::int64_t n);

  /// One row: exp(x - max) / sum, summed as in `attend`.
  void (*softmax)(const float* x, std::int64_t n, float* out);

  /// One row. m = sum(x) / columns, summed in the 16 lanes and the tree of
  /// rms_norm, as are the squares of x - m, with fma. Then
  /// out = fma((x - m) * (1 / sqrt(sum / columns + eps)), w, b).
  void (*layer_norm)(const float* x, const float* w, const float* b, float eps,
                     std::int64_t columns, float* out);

  /// One row: out = x * p, p = 1 - c where x > 0, else c: GELU within 1e-6.
  /// c is what erf lacks of 1 at z = |x| / sqrt(2), halved, by formula 7.1.26
  /// of Abramowitz and Stegun, Handbook of Mathematical Functions (1964), which
  /// is right within 1.5e-7: t = 1 / fma(0.3275911, z, 1);
  /// c = (t * (a1 + t * (a2 + t * (a3 + t * (a4 + t * a5))))) *
  /// exp(0 - z * z), with fma from a5 on, and the a halved.
  void (*erf_gelu)(const float* x, std::int64_t n, float* out);

  /// One row: out = erf_gelu(gate) * up.
  gated_row erf_gelu_mul;
};

const kernel_table& plain_kernels();
const kernel_table& avx2_kernels();
const kernel_table& avx512_kernels();
const kernel_table& amx_kernels();

} // namespace troupe::ops::cpu
