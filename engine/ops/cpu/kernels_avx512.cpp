#include "engine/ops/cpu/lane_kernels.hpp"
#include "engine/ops/cpu/lanes_avx512.hpp"

namespace troupe::ops::cpu {
namespace {

enum class kind { q8_0, q4_0, q4_1 };

constexpr tile_format format_of(kind k) {
  return k == kind::q8_0   ? q8_0_format
         : k == kind::q4_0 ? q4_0_format
                           : q4_1_format;
}

__m512i load_64(const void* from) {
  return _mm512_loadu_si512(from);
}

__m512 sixteen_halves(const std::byte* from) {
  return _mm512_cvtph_ps(
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

/// sum += w * four columns of q, in each lane the same four. g++ 12 would load
/// and broadcast them by an instruction of their own, a quarter slower.
inline void add_products(__m512i& sum, __m512i w, const std::int8_t* q) {
  using word [[gnu::may_alias, gnu::aligned(1)]] = int;
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(sum)
      : "v"(w), "m"(*reinterpret_cast<const word*>(q)));
}

/// How far ahead of its use a weight is asked for: few rows go through a tile
/// faster than the hardware by itself fetches the next one.
constexpr int prefetch_bytes = 4096;

/// The block's eight groups of four columns, as unsigned bytes.
template <kind K>
inline void unpack(const std::byte* values, __m512i (&w)[8]) {
  if constexpr (K == kind::q8_0) {
#pragma GCC unroll 8
    for (int g = 0; g < 8; ++g)
      w[g] = load_64(values + g * 64);
  } else {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      const __m512i both = load_64(values + g * 64);
      w[g] = _mm512_and_si512(both, low);
      w[g + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
  }
}

/// What a row's sum of w * q starts from: the weights' offset is taken off
/// here.
template <kind K>
inline __m512i offset(const block_scale& s) {
  return K == kind::q8_0   ? _mm512_set1_epi32(s.minus_128)
         : K == kind::q4_0 ? _mm512_set1_epi32(s.minus_8)
                           : _mm512_setzero_si512();
}

/// One block of B neighbouring rows; their integer sums are independent, which
/// hides the latency of each.
template <kind K, int B>
inline void add_block(const __m512i (&w)[8], __m512 dw, __m512 minimum,
                      const std::int8_t* q, const block_scale* s,
                      __m512* sums) {
  __m512i i[B];
#pragma GCC unroll 4
  for (int r = 0; r < B; ++r)
    i[r] = offset<K>(s[r]);
#pragma GCC unroll 8
  for (int g = 0; g < 8; ++g)
#pragma GCC unroll 4
    for (int r = 0; r < B; ++r)
      add_products(i[r], w[g], q + r * block_columns + 4 * g);
#pragma GCC unroll 4
  for (int r = 0; r < B; ++r) {
    sums[r] =
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(i[r]),
                        _mm512_mul_ps(dw, _mm512_set1_ps(s[r].d)), sums[r]);
    if constexpr (K == kind::q4_1)
      sums[r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(s[r].d_sum), sums[r]);
  }
}

template <kind K, int R>
void tile_rows(const std::byte* tile, std::int64_t blocks,
               const quantised_group& x, const tile_output& out) {
  constexpr tile_format format = format_of(K);
  constexpr int rest = R % 4;
  __m512 sums[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    sums[r] = _mm512_setzero_ps();
  for (std::int64_t b = 0; b < blocks; ++b) {
    __m512i w[8];
    const std::byte* values = values_of(tile, format, b);
    for (int at = 0; at < format.value_bytes + format.scale_bytes; at += 64)
      _mm_prefetch(values + prefetch_bytes + at, _MM_HINT_T0);
    unpack<K>(values, w);
    const std::byte* scales = scales_of(tile, format, b);
    const __m512 dw = sixteen_halves(scales);
    __m512 minimum = _mm512_setzero_ps();
    if constexpr (K == kind::q4_1)
      minimum = sixteen_halves(scales + 32);
    const std::int8_t* q = x.q + b * R * block_columns;
    const block_scale* s = x.scale + b * R;
#pragma GCC unroll 4
    for (int r = 0; r < R - rest; r += 4)
      add_block<K, 4>(w, dw, minimum, q + r * block_columns, s + r, sums + r);
    if constexpr (rest > 0)
      add_block<K, rest>(w, dw, minimum, q + (R - rest) * block_columns,
                         s + (R - rest), sums + (R - rest));
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    finish_row<avx512_lanes>(out, r, sums[r]);
}

template <kind K>
void quantised_weights(const std::byte* tile, std::int64_t blocks,
                       const quantised_group& x, const tile_output& out) {
  with_constant<group_rows>(x.rows, [&](auto r) {
    tile_rows<K, decltype(r)::value>(tile, blocks, x, out);
  });
}

constexpr kernel_table table = make_table<avx512_lanes>(
    quantised_weights<kind::q8_0>, quantised_weights<kind::q4_0>,
    quantised_weights<kind::q4_1>);

} // namespace

const kernel_table& avx512_kernels() {
  return table;
}

} // namespace troupe::ops::cpu
