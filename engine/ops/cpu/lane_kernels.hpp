#pragma once

#include "engine/ops/cpu/bf16_tile.hpp"
#include "engine/ops/cpu/kernels.hpp"

#include <utility>

/// The kernels that are written once, over a type L of 16 float lanes
/// (lanes_plain.hpp, lanes_avx2.hpp, lanes_avx512.hpp). Everything is in the
/// unnamed namespace: each file that includes this gets its own copy, compiled
/// for its own instruction set.
namespace troupe::ops::cpu {
namespace {

/// How far ahead of its use a weight is asked for: few rows go through a tile
/// faster than the hardware by itself fetches the next one.
constexpr std::int64_t prefetch_bytes = 4096;

template <int N>
struct constant {
  static constexpr int value = N;
};

/// Calls f(constant<n>) for n in 1..Max.
template <int Max, class F>
inline void with_constant(int n, F f) {
  if constexpr (Max > 0) {
    if (n == Max)
      f(constant<Max>{});
    else
      with_constant<Max - 1>(n, f);
  }
}

/// Calls f(constant<n>, row) for pieces of N rows and what is left.
template <int N, class F>
inline void in_pieces(std::int64_t rows, F f) {
  for (std::int64_t row = 0; row < rows; row += N)
    with_constant<N>(rows - row < N ? static_cast<int>(rows - row) : N,
                     [&](auto n) { f(n, row); });
}

template <class L>
float tree_sum(typename L::f32 v) {
  float s[16];
  L::store(s, v);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i)
      s[i] = s[i] + s[i + width];
  return s[0];
}

template <class L>
float largest(typename L::f32 v) {
  float s[16];
  L::store(s, v);
  for (int i = 1; i < 16; ++i)
    s[0] = s[i] > s[0] ? s[i] : s[0];
  return s[0];
}

/// Lanes 0 to n - 1 from memory, the others zero.
template <class L>
typename L::f32 load_first(const float* x, std::int64_t n) {
  float s[16] = {};
  for (std::int64_t i = 0; i < n; ++i)
    s[i] = x[i];
  return L::load(s);
}

template <class L>
void store_first(float* x, std::int64_t n, typename L::f32 v) {
  float s[16];
  L::store(s, v);
  for (std::int64_t i = 0; i < n; ++i)
    x[i] = s[i];
}

/// x = n ln 2 + r with |r| <= ln 2 / 2; exp(x) = 2^n * (Taylor of degree 7).
/// n is rounded by adding 1.5 * 2^23, whose low bits then hold it.
template <class L>
inline typename L::f32 exp_lanes(typename L::f32 x) {
  const auto shift = L::set(12582912.0f);
  const auto t = L::fma(x, L::set(1.4426950408889634f), shift);
  const auto n = L::sub(t, shift);
  auto r = L::fma(n, L::set(-0.693145751953125f), x);
  r = L::fma(n, L::set(-1.42860682030942e-6f), r);
  auto p = L::set(1.0f / 5040);
  p = L::fma(p, r, L::set(1.0f / 720));
  p = L::fma(p, r, L::set(1.0f / 120));
  p = L::fma(p, r, L::set(1.0f / 24));
  p = L::fma(p, r, L::set(1.0f / 6));
  p = L::fma(p, r, L::set(0.5f));
  p = L::fma(p, r, L::set(1.0f));
  p = L::fma(p, r, L::set(1.0f));
  const auto y = L::mul(p, L::power_of_two(t));
  const auto low = L::set(-87.33f), high = L::set(88.37f);
  return L::if_less(high, x, L::set(__builtin_inff()),
                    L::if_less(x, low, L::zero(), y));
}

/// out = f(x) of n elements, 16 at a time.
template <class L, class F>
inline void map_row(const float* x, std::int64_t n, float* out, F f) {
  const auto whole = n / 16 * 16, rest = n - whole;
  for (std::int64_t i = 0; i < whole; i += 16)
    L::store(out + i, f(L::load(x + i)));
  if (rest > 0)
    store_first<L>(out + whole, rest, f(load_first<L>(x + whole, rest)));
}

/// out = f(x, y) of n elements each.
template <class L, class F>
inline void map_rows(const float* x, const float* y, std::int64_t n, float* out,
                     F f) {
  const auto whole = n / 16 * 16, rest = n - whole;
  for (std::int64_t i = 0; i < whole; i += 16)
    L::store(out + i, f(L::load(x + i), L::load(y + i)));
  if (rest > 0)
    store_first<L>(
        out + whole, rest,
        f(load_first<L>(x + whole, rest), load_first<L>(y + whole, rest)));
}

template <class L>
void exp_row(const float* x, std::int64_t n, float* out) {
  map_row<L>(x, n, out, [](auto v) { return exp_lanes<L>(v); });
}

template <class L>
inline typename L::f32 tanh_lanes(typename L::f32 x) {
  const auto one = L::set(1.0f);
  const auto z = L::mul(x, x);
  auto p = L::set(62.0f / 2835);
  p = L::fma(p, z, L::set(-17.0f / 315));
  p = L::fma(p, z, L::set(2.0f / 15));
  p = L::fma(p, z, L::set(-1.0f / 3));
  const auto near = L::fma(L::mul(x, z), p, x);
  const auto e = exp_lanes<L>(L::add(x, x));
  const auto far = L::sub(one, L::div(L::set(2.0f), L::add(e, one)));
  return L::if_less(z, L::set(0.0625f), near, far);
}

template <class L>
inline typename L::f32 capped(typename L::f32 x, typename L::f32 cap) {
  return L::mul(tanh_lanes<L>(L::div(x, cap)), cap);
}

template <class L>
void soft_cap_row(float* x, float cap, std::int64_t n) {
  const auto limit = L::set(cap);
  map_row<L>(x, n, x, [&](auto v) { return capped<L>(v, limit); });
}

template <class L>
void scale_row(float* x, float factor, std::int64_t n) {
  const auto f = L::set(factor);
  map_row<L>(x, n, x, [&](auto v) { return L::mul(v, f); });
}

template <class L>
void add_scaled_row(const float* x, float factor, std::int64_t n, float* y) {
  const auto f = L::set(factor);
  map_rows<L>(x, y, n, y, [&](auto a, auto b) { return L::fma(f, a, b); });
}

template <class L>
void quantise_rows(const float* x, int rows, std::int64_t blocks,
                   std::int8_t* q, block_scale* scale) {
  constexpr std::uint32_t infinity_bits = 0x7f800000;
  constexpr std::uint32_t smallest_bits = (127 - 100) << 23; // 2^-100
  for (int row = 0; row < rows; ++row) {
    for (std::int64_t b = 0; b < blocks; ++b) {
      const float* from = x + (row * blocks + b) * block_columns;
      std::int8_t* to = q + (b * rows + row) * block_columns;
      block_scale& s = scale[b * rows + row];
      const auto first = L::load(from), second = L::load(from + 16);
      const std::uint32_t bits = L::largest_magnitude_bits(first, second);
      float a, inverse = 0;
      __builtin_memcpy(&a, &bits, sizeof a);
      s.sums[0] = s.sums[1] = 0;
      if (bits >= infinity_bits) {
        s.d = __builtin_nanf("");
      } else if (bits < smallest_bits) {
        s.d = 0;
      } else {
        s.d = a / 127.0f;
        inverse = 127.0f / a;
      }
      if (inverse == 0) {
        for (int i = 0; i < block_columns; ++i)
          to[i] = 0;
      } else {
        const auto factor = L::set(inverse);
        L::store_rounded(to, L::mul(first, factor), L::mul(second, factor),
                         s.sums);
      }
      const std::int32_t sum = s.sums[0] + s.sums[1];
      s.d_sum = s.d * static_cast<float>(sum);
      s.minus_8 = -8 * sum;
      s.minus_128 = -128 * sum;
    }
  }
}

/// Writes the 16 sums of one row of a tile.
template <class L>
inline void finish_row(const tile_output& out, std::int64_t row,
                       typename L::f32 sums) {
  float* y = out.y + row * out.stride;
  if (out.lanes == tile_lanes) {
    L::store(y, out.add ? L::add(L::load(y), sums) : sums);
    return;
  }
  if (out.add)
    sums = L::add(load_first<L>(y, out.lanes), sums);
  store_first<L>(y, out.lanes, sums);
}

/// Rows of the group that begins at row `first`.
inline int group_size(std::int64_t first, std::int64_t rows) {
  const auto left = rows - first;
  return left < group_rows ? static_cast<int>(left) : group_rows;
}

/// Where tile t of `tiles` puts what rows from `row` on give.
inline tile_output output_at(const tile_output& out, int t, int tiles,
                             std::int64_t row) {
  return {out.y + row * out.stride + t * tile_lanes, out.stride,
          t + 1 < tiles ? tile_lanes : out.lanes, out.add};
}

/// `Load` is a type with a static `load(const std::byte*)` of 16 weights.
template <class L, class Load, int R>
void float_rows(const std::byte* tile, std::int64_t columns, const float* x,
                std::int64_t row, const tile_output& out) {
  typename L::f32 s[R];
  for (int r = 0; r < R; ++r)
    s[r] = L::zero();
  const float* from = x + row * columns;
  for (std::int64_t k = 0; k < columns; ++k) {
    const auto w = Load::load(tile + k * Load::bytes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      s[r] = L::fma(w, L::set(from[r * columns + k]), s[r]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    finish_row<L>(out, row + r, s[r]);
}

template <class L, class Load>
void float_weights(const std::byte* tile, std::int64_t columns, const float* x,
                   std::int64_t rows, const tile_output& out) {
  in_pieces<L::product_rows>(rows, [&](auto r, std::int64_t row) {
    float_rows<L, Load, decltype(r)::value>(tile, columns, x, row, out);
  });
}

template <class L>
struct load_f32 {
  static constexpr int bytes = 64;
  static typename L::f32 load(const std::byte* w) {
    return L::load(reinterpret_cast<const float*>(w));
  }
};

template <class L>
struct load_f16 {
  static constexpr int bytes = 32;
  static typename L::f32 load(const std::byte* w) {
    return L::load_f16(reinterpret_cast<const std::uint16_t*>(w));
  }
};

/// A row as rounded_rows has it: `put` stores 16 numbers that are rounded.
template <class L, class Put>
inline void round_row(const float* x, std::int64_t columns, Put put) {
  for (std::int64_t i = 0; i < bf16_blocks(columns) * block_columns; i += 16) {
    const auto left = columns - i;
    put(i, L::rounded(left >= 16 ? L::load(x + i)
                                 : load_first<L>(x + i, left > 0 ? left : 0)));
  }
}

/// As floats.
template <class L>
void round_rows(const float* x, int rows, std::int64_t columns,
                std::byte* out) {
  auto* to = reinterpret_cast<float*>(out);
  for (int row = 0; row < rows; ++row)
    round_row<L>(x + row * columns, columns, [&](auto i, auto v) {
      const auto block = i / block_columns;
      L::store(to + (block * rows + row) * block_columns + i % block_columns,
               v);
    });
}

/// Numbers in bf16: `pairs` pairs of neighbouring columns, each of 16 outputs,
/// `pair_bytes` from one pair to the next.
struct bf16_block {
  const std::byte* numbers;
  std::int64_t pair_bytes = 64;
  int pairs = column_pairs;
};

/// One block's sums over its even columns (Parity 0) or its odd ones, of R rows
/// that are `stride` floats apart.
template <class L, int Parity, int R>
[[gnu::always_inline]] inline void add_columns(const bf16_block& block,
                                               const float* x, int stride,
                                               typename L::f32 (&sums)[R]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    sums[r] = L::zero();
  for (int p = 0; p < block.pairs; ++p) {
    const auto w =
        L::template load_bf16<Parity>(block.numbers + p * block.pair_bytes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      sums[r] = L::fma(w, L::set(x[r * stride + 2 * p + Parity]), sums[r]);
  }
}

/// Adds a block to the sums of R rows, as the matrix unit does.
template <class L, int R>
[[gnu::always_inline]] inline void add_block(const bf16_block& block,
                                             const float* x, int stride,
                                             typename L::f32 (&sums)[R]) {
  typename L::f32 even[R], odd[R];
  add_columns<L, 0>(block, x, stride, even);
  add_columns<L, 1>(block, x, stride, odd);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    sums[r] = L::add(sums[r], L::add(even[r], odd[r]));
}

/// R neighbouring rows of a group, `rows` of which lie in a block.
template <class L, int R>
void rounded_tile_rows(const std::byte* tile, std::int64_t blocks,
                       const float* x, int rows, const tile_output& out,
                       std::int64_t row) {
  typename L::f32 s[R];
  for (int r = 0; r < R; ++r)
    s[r] = L::zero();
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::byte* block = tile + b * bf16_block_bytes;
    for (int at = 0; at < bf16_block_bytes; at += 64)
      L::prefetch(block + prefetch_bytes + at);
    add_block<L>({block}, x + b * rows * block_columns, block_columns, s);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    finish_row<L>(out, row + r, s[r]);
}

template <class L>
void rounded_weights(const std::byte* tile, int tiles, const rounded_rows& x,
                     const tile_output& out) {
  for (int t = 0; t < tiles; ++t, tile += x.blocks * bf16_block_bytes) {
    const auto to = output_at(out, t, tiles, 0);
    for (std::int64_t first = 0; first < x.rows; first += group_rows) {
      const auto* group = reinterpret_cast<const float*>(x.x) +
                          first * x.blocks * block_columns;
      const int rows = group_size(first, x.rows);
      in_pieces<L::product_rows>(rows, [&](auto r, std::int64_t row) {
        rounded_tile_rows<L, decltype(r)::value>(
            tile, x.blocks, group + row * block_columns, rows, to, first + row);
      });
    }
  }
}

template <class L>
void rms_norm_row(const float* x, const float* w, float eps,
                  std::int64_t columns, float* out) {
  auto squares = L::zero();
  const auto whole = columns / 16 * 16, rest = columns - whole;
  for (std::int64_t i = 0; i < whole; i += 16) {
    const auto v = L::load(x + i);
    squares = L::fma(v, v, squares);
  }
  if (rest > 0) {
    const auto v = load_first<L>(x + whole, rest);
    squares = L::fma(v, v, squares);
  }
  const float mean = tree_sum<L>(squares) / static_cast<float>(columns);
  const auto factor = L::set(1.0f / L::square_root(mean + eps));
  for (std::int64_t i = 0; i < whole; i += 16)
    L::store(out + i, L::mul(L::mul(L::load(x + i), factor), L::load(w + i)));
  if (rest > 0)
    store_first<L>(out + whole, rest,
                   L::mul(L::mul(load_first<L>(x + whole, rest), factor),
                          load_first<L>(w + whole, rest)));
}

template <class L>
void layer_norm_row(const float* x, const float* w, const float* b, float eps,
                    std::int64_t columns, float* out) {
  const auto whole = columns / 16 * 16;
  const auto rest = static_cast<int>(columns - whole);
  const auto count = static_cast<float>(columns);
  auto sums = L::zero();
  for (std::int64_t i = 0; i < whole; i += 16)
    sums = L::add(sums, L::load(x + i));
  if (rest > 0)
    sums = L::add(sums, load_first<L>(x + whole, rest));
  const auto mean = L::set(tree_sum<L>(sums) / count);
  auto squares = L::zero();
  for (std::int64_t i = 0; i < whole; i += 16) {
    const auto v = L::sub(L::load(x + i), mean);
    squares = L::fma(v, v, squares);
  }
  if (rest > 0) {
    const auto v =
        L::keep(L::sub(load_first<L>(x + whole, rest), mean), rest, 0.0f);
    squares = L::fma(v, v, squares);
  }
  const float spread = tree_sum<L>(squares) / count;
  const auto factor = L::set(1.0f / L::square_root(spread + eps));
  const auto normed = [&](auto v, auto weight, auto bias) {
    return L::fma(L::mul(L::sub(v, mean), factor), weight, bias);
  };
  for (std::int64_t i = 0; i < whole; i += 16)
    L::store(out + i, normed(L::load(x + i), L::load(w + i), L::load(b + i)));
  if (rest > 0)
    store_first<L>(out + whole, rest,
                   normed(load_first<L>(x + whole, rest),
                          load_first<L>(w + whole, rest),
                          load_first<L>(b + whole, rest)));
}

template <class L>
inline typename L::f32 silu_mul_lanes(typename L::f32 gate,
                                      typename L::f32 up) {
  const auto e = exp_lanes<L>(L::sub(L::zero(), gate));
  return L::mul(L::div(gate, L::add(L::set(1.0f), e)), up);
}

template <class L>
void silu_mul_row(const float* gate, const float* up, std::int64_t n,
                  float* out) {
  map_rows<L>(gate, up, n, out,
              [](auto g, auto u) { return silu_mul_lanes<L>(g, u); });
}

template <class L>
inline typename L::f32 gelu_mul_lanes(typename L::f32 gate,
                                      typename L::f32 up) {
  const auto one = L::set(1.0f);
  const auto bend = L::fma(L::mul(L::set(0.044715f), gate), gate, one);
  const auto u = L::mul(L::mul(L::set(0.7978845608028654f), gate), bend);
  const auto e = exp_lanes<L>(L::sub(L::zero(), L::add(u, u)));
  return L::mul(L::div(gate, L::add(one, e)), up);
}

template <class L>
void gelu_mul_row(const float* gate, const float* up, std::int64_t n,
                  float* out) {
  map_rows<L>(gate, up, n, out,
              [](auto g, auto u) { return gelu_mul_lanes<L>(g, u); });
}

template <class L>
inline typename L::f32 erf_gelu_lanes(typename L::f32 x) {
  const auto one = L::set(1.0f);
  const auto magnitude = L::max(x, L::sub(L::zero(), x));
  const auto z = L::mul(magnitude, L::set(0.7071067811865476f));
  const auto t = L::div(one, L::fma(L::set(0.3275911f), z, one));
  // The coefficients, halved.
  auto p = L::set(0.5307027145f);
  p = L::fma(p, t, L::set(-0.7265760135f));
  p = L::fma(p, t, L::set(0.7107068705f));
  p = L::fma(p, t, L::set(-0.142248368f));
  p = L::fma(p, t, L::set(0.127414796f));
  const auto e = exp_lanes<L>(L::sub(L::zero(), L::mul(z, z)));
  const auto c = L::mul(L::mul(p, t), e);
  return L::mul(x, L::if_less(L::zero(), x, L::sub(one, c), c));
}

template <class L>
void erf_gelu_row(const float* x, std::int64_t n, float* out) {
  map_row<L>(x, n, out, [](auto v) { return erf_gelu_lanes<L>(v); });
}

template <class L>
void erf_gelu_mul_row(const float* gate, const float* up, std::int64_t n,
                      float* out) {
  map_rows<L>(gate, up, n, out,
              [](auto g, auto u) { return L::mul(erf_gelu_lanes<L>(g), u); });
}

/// With more queries than this, keys and values come from a cache already.
constexpr int queries_of_a_decode = 4;

/// Scores of R queries against P groups of 16 positions, of `groups`. Few
/// queries are done faster than memory delivers, so the next keys and the
/// values of these positions are asked for meanwhile.
template <class L, int R, int P>
inline void score_groups(const attention_span& a, int group, int groups,
                         float (*scores)[span_positions]) {
  typename L::f32 s[R][P];
  for (int r = 0; r < R; ++r)
    for (int p = 0; p < P; ++p)
      s[r][p] = L::zero();
  const int next = group + 2 * P <= groups ? group + P : group;
  for (int d = 0; d < a.head_dim; ++d) {
    if constexpr (R <= queries_of_a_decode) {
      if (d % 2 == 0) {
        for (int p = 0; p < P; ++p) {
          L::prefetch(a.keys[next + p] + d * 16);
          L::prefetch(a.values[group + p] + d * 16);
        }
      }
    }
    typename L::f32 k[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
      k[p] = L::load_f16(a.keys[group + p] + d * 16);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const auto q = L::set(a.queries[r][d]);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p)
        s[r][p] = L::fma(q, k[p], s[r][p]);
    }
  }
  const auto scale = L::set(a.scale);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p)
      L::store(scores[r] + (group + p) * 16, L::mul(s[r][p], scale));
}

/// Turns scores first to n - 1 into weights (what else stands in their groups
/// of 16 into zeros), which are bf16 if Rounded.
template <class L, bool Rounded = false>
inline void weigh(float* scores, int first, int n, float* partial) {
  const int start = first / 16 * 16;
  for (int i = start; i < first; ++i)
    scores[i] = -__builtin_inff();
  auto most = L::set(-__builtin_inff());
  for (int i = start; i < n; i += 16)
    most = L::max(L::keep(L::load(scores + i), n - i, -__builtin_inff()), most);
  const float maximum = largest<L>(most);
  auto sums = L::zero();
  for (int i = start; i < n; i += 16) {
    const auto shifted = L::sub(L::load(scores + i), L::set(maximum));
    auto w = L::keep(exp_lanes<L>(shifted), n - i, 0.0f);
    if constexpr (Rounded)
      w = L::rounded(w);
    L::store(scores + i, w);
    sums = L::add(sums, w);
  }
  partial[0] = maximum;
  partial[1] = tree_sum<L>(sums);
}

/// Positions of a span.
struct position_range {
  int from, to;
};

/// Groups of 16 positions that any query of a span sees: from, to.
inline position_range seen_groups(const attention_span& a) {
  int least = span_positions, most = 0;
  for (int r = 0; r < a.count; ++r) {
    least = a.first[r] < least ? a.first[r] : least;
    most = a.visible[r] > most ? a.visible[r] : most;
  }
  return {least / 16, (most + 15) / 16};
}

/// The positions that all R queries see; from 0 to 0 if there are none.
template <int R>
inline position_range shared_positions(const attention_span& a) {
  position_range out{0, span_positions};
  for (int r = 0; r < R; ++r) {
    out.from = a.first[r] > out.from ? a.first[r] : out.from;
    out.to = a.visible[r] < out.to ? a.visible[r] : out.to;
  }
  return out.from < out.to ? out : position_range{0, 0};
}

/// Dimensions d to d + 16 V of the values of some positions, weighted and added
/// to the sums of one query.
template <class L, int V>
inline void add_values(const attention_span& a, int d, position_range positions,
                       const float* weights, typename L::f32 (&sums)[V]) {
  for (int t = positions.from; t < positions.to; ++t) {
    const std::uint16_t* from = a.values[t / 16] + (t % 16) * a.head_dim + d;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      sums[v] = L::fma(L::set(weights[t]), L::load_f16(from + v * 16), sums[v]);
  }
}

/// Dimensions d to d + 16 V of the weighted sum of values. The `shared`
/// positions are seen by all R queries.
template <class L, int R, int V>
inline void sum_values(const attention_span& a, int d, position_range shared,
                       const float (*weights)[span_positions]) {
  typename L::f32 s[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v)
      s[r][v] = L::zero();
  if (shared.from > 0)
    for (int r = 0; r < R; ++r)
      add_values<L, V>(a, d, {a.first[r], shared.from}, weights[r], s[r]);
  for (int t = shared.from; t < shared.to; ++t) {
    const std::uint16_t* from = a.values[t / 16] + (t % 16) * a.head_dim + d;
    typename L::f32 value[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      value[v] = L::load_f16(from + v * 16);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const auto w = L::set(weights[r][t]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        s[r][v] = L::fma(w, value[v], s[r][v]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    const int rest = a.first[r] > shared.to ? a.first[r] : shared.to;
    add_values<L, V>(a, d, {rest, a.visible[r]}, weights[r], s[r]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      L::store(a.partial[r] + partial_header + d + v * 16, s[r][v]);
  }
}

template <class L, int R>
void attend_queries(const attention_span& a) {
  alignas(64) float scores[R][span_positions];
  const auto seen = seen_groups(a);
  const auto shared = shared_positions<R>(a);
  const int groups = seen.to;
  int g = seen.from;
  if constexpr (R <= queries_of_a_decode)
    for (int ahead = g; ahead < groups && ahead < g + L::key_groups; ++ahead)
      for (int d = 0; d < a.head_dim; d += 2)
        L::prefetch(a.keys[ahead] + d * 16);
  for (; g + L::key_groups <= groups; g += L::key_groups)
    score_groups<L, R, L::key_groups>(a, g, groups, scores);
  for (; g < groups; ++g)
    score_groups<L, R, 1>(a, g, groups, scores);
  if (a.soft_cap > 0)
    for (int r = 0; r < R; ++r)
      soft_cap_row<L>(scores[r] + seen.from * 16, a.soft_cap,
                      (groups - seen.from) * 16);
  for (int r = 0; r < R; ++r)
    weigh<L>(scores[r], a.first[r], a.visible[r], a.partial[r]);
  int d = 0;
  for (; d + 16 * L::value_vectors <= a.head_dim; d += 16 * L::value_vectors)
    sum_values<L, R, L::value_vectors>(a, d, shared, scores);
  for (; d < a.head_dim; d += 16)
    sum_values<L, R, 1>(a, d, shared, scores);
}

template <class L>
void attend_span(const attention_span& a) {
  with_constant<query_tile>(
      a.count, [&](auto r) { attend_queries<L, decltype(r)::value>(a); });
}

/// Turns sums of q k into weights in bf16, in all groups that any query sees.
template <class L>
void weigh_rounded(const attention_span& a, position_range groups,
                   float (*scores)[span_positions]) {
  const int from = groups.from * 16, to = groups.to * 16;
  for (int r = 0; r < a.count; ++r) {
    float* s = scores[r];
    scale_row<L>(s + from, a.scale, to - from);
    if (a.soft_cap > 0)
      soft_cap_row<L>(s + from, a.soft_cap, to - from);
    weigh<L, true>(s, a.first[r], a.visible[r], a.partial[r]);
    for (int i = from; i < a.first[r] / 16 * 16; i += 16)
      L::store(s + i, L::zero());
    for (int i = (a.visible[r] + 15) / 16 * 16; i < to; i += 16)
      L::store(s + i, L::zero());
  }
}

/// Groups of positions that are asked for before they are needed.
constexpr int groups_ahead = 4;

/// Few queries are done faster than memory delivers: asks for the keys or
/// values of `count` groups from `from` on, as far as they are seen.
template <class L>
inline void ask_ahead(const attention_span& a,
                      const std::uint16_t* const* groups, position_range seen,
                      int from, int count) {
  if (a.count > queries_of_a_decode)
    return;
  for (int g = from; g < from + count && g < seen.to; ++g)
    for (int i = 0; i < 16 * a.head_dim; i += 32)
      L::prefetch(groups[g] + i);
}

/// Sums of q k of R queries and group g.
template <class L, int R>
void score_rounded(const attention_span& a, std::int64_t row, int g,
                   float (*scores)[span_positions]) {
  const auto* keys = reinterpret_cast<const std::byte*>(a.keys[g]);
  const auto* q =
      reinterpret_cast<const float*>(a.rounded) + row * block_columns;
  typename L::f32 s[R];
  for (int r = 0; r < R; ++r)
    s[r] = L::zero();
  int d = 0;
  for (; d + block_columns <= a.head_dim; d += block_columns)
    add_block<L>({keys + d * 32}, q + d * a.count, block_columns, s);
  if (d < a.head_dim)
    add_block<L>({keys + d * 32, 64, column_pairs / 2}, q + d * a.count,
                 block_columns, s);
  for (int r = 0; r < R; ++r)
    L::store(scores[row + r] + g * 16, s[r]);
}

/// Dimensions d to d + 15 of the weighted sums of values of R queries.
template <class L, int R>
void sum_rounded(const attention_span& a, std::int64_t row, int d,
                 position_range groups,
                 const float (*weights)[span_positions]) {
  typename L::f32 s[R];
  for (int r = 0; r < R; ++r)
    s[r] = L::zero();
  for (int g = groups.from; g < groups.to; ++g) {
    if (d == 0 && row == 0)
      ask_ahead<L>(a, a.values, groups, g + groups_ahead, 1);
    add_block<L>({reinterpret_cast<const std::byte*>(a.values[g] + d * 2),
                  a.head_dim * 4, column_pairs / 2},
                 weights[row] + g * 16, span_positions, s);
  }
  for (int r = 0; r < R; ++r)
    L::store(a.partial[row + r] + partial_header + d, s[r]);
}

template <class L>
void attend_rounded(const attention_span& a) {
  constexpr int most = L::product_rows >= 16 ? 8 : 3;
  alignas(64) float scores[rounded_query_tile][span_positions];
  const auto groups = seen_groups(a);
  for (int g = groups.from; g < groups.to; ++g) {
    ask_ahead<L>(a, a.keys, groups, g + groups_ahead, 1);
    in_pieces<most>(a.count, [&](auto n, std::int64_t row) {
      score_rounded<L, decltype(n)::value>(a, row, g, scores);
    });
  }
  ask_ahead<L>(a, a.values, groups, groups.from, groups_ahead);
  weigh_rounded<L>(a, groups, scores);
  for (int d = 0; d < a.head_dim; d += 16)
    in_pieces<most>(a.count, [&](auto n, std::int64_t row) {
      sum_rounded<L, decltype(n)::value>(a, row, d, groups, scores);
    });
}

template <class L>
float exp_one(float x) {
  float s[16];
  L::store(s, exp_lanes<L>(L::set(x)));
  return s[0];
}

template <class L>
void merge_spans(const float* partials, std::int64_t stride, std::int64_t spans,
                 int head_dim, float* out) {
  float maximum = partials[0];
  for (std::int64_t i = 1; i < spans; ++i) {
    const float m = partials[i * stride];
    maximum = m > maximum ? m : maximum;
  }
  auto total = L::zero();
  for (int d = 0; d < head_dim; d += 16)
    L::store(out + d, L::zero());
  for (std::int64_t i = 0; i < spans; ++i) {
    const float* p = partials + i * stride;
    const auto factor = L::set(exp_one<L>(p[0] - maximum));
    total = L::fma(factor, L::set(p[1]), total);
    for (int d = 0; d < head_dim; d += 16)
      L::store(out + d, L::fma(factor, L::load(p + partial_header + d),
                               L::load(out + d)));
  }
  for (int d = 0; d < head_dim; d += 16)
    L::store(out + d, L::div(L::load(out + d), total));
}

template <class L>
void softmax_row(const float* x, std::int64_t n, float* out) {
  float maximum = x[0];
  for (std::int64_t i = 1; i < n; ++i)
    maximum = x[i] > maximum ? x[i] : maximum;
  const auto shift = L::set(maximum);
  auto sums = L::zero();
  for (std::int64_t i = 0; i < n; i += 16) {
    const int left = n - i < 16 ? static_cast<int>(n - i) : 16;
    const auto shifted = L::sub(load_first<L>(x + i, left), shift);
    const auto e = L::keep(exp_lanes<L>(shifted), left, 0.0f);
    store_first<L>(out + i, left, e);
    sums = L::add(sums, e);
  }
  const auto sum = L::set(tree_sum<L>(sums));
  map_row<L>(out, n, out, [&](auto e) { return L::div(e, sum); });
}

template <class L>
void f16_row(const float* x, std::int64_t n, std::uint16_t* out) {
  const auto whole = n / 16 * 16;
  for (std::int64_t i = 0; i < whole; i += 16)
    L::store_f16(out + i, L::load(x + i));
  if (whole == n)
    return;
  std::uint16_t last[16];
  L::store_f16(last, load_first<L>(x + whole, n - whole));
  for (std::int64_t i = whole; i < n; ++i)
    out[i] = last[i - whole];
}

template <class L>
void bf16_row(const float* x, std::int64_t n, std::uint16_t* out) {
  for (std::int64_t i = 0; i < n; i += 16) {
    float rounded[16];
    L::store(rounded, L::rounded(L::load(x + i)));
    for (int j = 0; j < 16; ++j) {
      std::uint32_t bits;
      __builtin_memcpy(&bits, &rounded[j], sizeof bits);
      out[i + j] = static_cast<std::uint16_t>(bits >> 16);
    }
  }
}

/// `Weights<f>::run` is the quantised_tile of format f.
template <class L, template <tile_format> class Weights, std::size_t... Types>
constexpr kernel_table make_table(std::index_sequence<Types...>) {
  return {quantise_rows<L>,
          {Weights<tile_formats[Types]>::run...},
          float_weights<L, load_f32<L>>,
          float_weights<L, load_f16<L>>,
          round_rows<L>,
          sizeof(float),
          rounded_weights<L>,
          nullptr,
          rms_norm_row<L>,
          silu_mul_row<L>,
          attend_span<L>,
          attend_rounded<L>,
          merge_spans<L>,
          f16_row<L>,
          bf16_row<L>,
          exp_row<L>,
          gelu_mul_row<L>,
          add_scaled_row<L>,
          scale_row<L>,
          soft_cap_row<L>,
          softmax_row<L>,
          layer_norm_row<L>,
          erf_gelu_row<L>,
          erf_gelu_mul_row<L>};
}

template <class L, template <tile_format> class Weights>
constexpr kernel_table make_table() {
  return make_table<L, Weights>(std::make_index_sequence<quantised_formats>{});
}

/// The bits of group g in a plane of `Bits` bits, as bits `To` and above of
/// each byte.
template <class L, int Bits, int To>
inline typename L::words plane_group(const std::byte* plane, int g) {
  const auto mask = 0x0101010101010101u * ((1u << Bits) - 1) << To;
  const auto v = L::load_words(plane + g % Bits * 64);
  const int from = Bits * (g / Bits);
  return (from > To ? v >> (from - To) : v << (To - from)) & mask;
}

/// A block's eight groups of four columns, as the bytes that are stored.
template <class L, tile_format F>
inline void unpack(const std::byte* values, typename L::words (&w)[8]) {
#pragma GCC unroll 8
  for (int g = 0; g < 8; ++g) {
    w[g] = plane_group<L, F.low_bits, 0>(values, g);
    if constexpr (F.high_bits > 0)
      w[g] |=
          plane_group<L, F.high_bits, F.low_bits>(values + 64 * F.low_bits, g);
    if constexpr (F.looked_up)
      w[g] = L::look_up(iq4_nl_stored, w[g]);
  }
}

/// Asks for block b's share of the unit that comes that much later.
template <class L, tile_format F>
inline void prefetch_ahead(const std::byte* tile, std::int64_t b) {
  constexpr auto share = unit_bytes(F) / unit_blocks(F);
  const std::byte* from = tile + b / unit_blocks(F) * unit_bytes(F) +
                          b % unit_blocks(F) * share + prefetch_bytes;
  for (std::int64_t at = 0; at < share; at += 64)
    L::prefetch(from + at);
}

} // namespace
} // namespace troupe::ops::cpu
