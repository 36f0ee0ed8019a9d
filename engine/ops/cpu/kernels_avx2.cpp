#include "engine/ops/cpu/lane_kernels.hpp"
#include "engine/ops/cpu/lanes_avx2.hpp"

namespace troupe::ops::cpu {
namespace {

enum class kind { q8_0, q4_0, q4_1 };

constexpr tile_format format_of(kind k) {
  return k == kind::q8_0   ? q8_0_format
         : k == kind::q4_0 ? q4_0_format
                           : q4_1_format;
}

constexpr int rows_at_once = 4;
constexpr int prefetch_bytes = 4096; // as in kernels_avx512.cpp

__m256i load_32(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

__m256i four_columns(const std::int8_t* q) {
  int word;
  __builtin_memcpy(&word, q, sizeof word);
  return _mm256_set1_epi32(word);
}

__m256 eight_halves(const std::byte* from) {
  return _mm256_cvtph_ps(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

/// 15 * 127 * 2 * 8 < 2^15: the eight 16-bit sums fit.
inline __m256i sum_4_bit(const __m256i w[4], const std::int8_t* q) {
  const __m256i low = _mm256_set1_epi8(15);
  __m256i pairs = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
    const __m256i first = _mm256_and_si256(w[g], low);
    const __m256i second = _mm256_and_si256(_mm256_srli_epi16(w[g], 4), low);
    pairs = _mm256_add_epi16(
        pairs, _mm256_maddubs_epi16(first, four_columns(q + 4 * g)));
    pairs = _mm256_add_epi16(
        pairs, _mm256_maddubs_epi16(second, four_columns(q + 16 + 4 * g)));
  }
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/// |w| * (q with w's sign): 128 * 127 * 2 < 2^15, so nothing saturates.
inline __m256i sum_8_bit(const std::byte* values, const std::int8_t* q) {
  const __m256i flip = _mm256_set1_epi8(-128);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int g = 0; g < 8; ++g) {
    const __m256i w = _mm256_xor_si256(load_32(values + g * 64), flip);
    const __m256i signed_q = _mm256_sign_epi8(four_columns(q + 4 * g), w);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), signed_q);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
  }
  return sum;
}

/// Eight outputs (half 0 or 1 of the tile) of R rows.
template <kind K, int R>
inline void half_rows(const std::byte* tile, std::int64_t blocks,
                      const quantised_group& x, int row, int half,
                      __m256 (&sums)[R]) {
  constexpr tile_format format = format_of(K);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
    sums[r] = _mm256_setzero_ps();
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::byte* values = values_of(tile, format, b) + half * 32;
    const std::byte* scales = scales_of(tile, format, b) + half * 16;
    if (half == 0)
      for (int at = 0; at < format.value_bytes + format.scale_bytes; at += 64)
        _mm_prefetch(values + prefetch_bytes + at, _MM_HINT_T0);
    const __m256 dw = eight_halves(scales);
    __m256i w[4];
    if constexpr (K != kind::q8_0)
      for (int g = 0; g < 4; ++g)
        w[g] = load_32(values + g * 64);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const std::int8_t* q = x.q + (b * x.rows + row + r) * block_columns;
      const block_scale& s = x.scale[b * x.rows + row + r];
      __m256i i;
      if constexpr (K == kind::q8_0)
        i = sum_8_bit(values, q);
      else
        i = sum_4_bit(w, q);
      if constexpr (K == kind::q4_0)
        i = _mm256_add_epi32(i, _mm256_set1_epi32(s.minus_8));
      sums[r] =
          _mm256_fmadd_ps(_mm256_cvtepi32_ps(i),
                          _mm256_mul_ps(dw, _mm256_set1_ps(s.d)), sums[r]);
      if constexpr (K == kind::q4_1)
        sums[r] = _mm256_fmadd_ps(eight_halves(scales + 32),
                                  _mm256_set1_ps(s.d_sum), sums[r]);
    }
  }
}

template <kind K, int R>
void tile_rows(const std::byte* tile, std::int64_t blocks,
               const quantised_group& x, int row, const tile_output& out) {
  __m256 first[R], second[R];
  half_rows<K, R>(tile, blocks, x, row, 0, first);
  half_rows<K, R>(tile, blocks, x, row, 1, second);
  for (int r = 0; r < R; ++r)
    finish_row<avx2_lanes>(out, row + r, {first[r], second[r]});
}

template <kind K>
void quantised_weights(const std::byte* tile, std::int64_t blocks,
                       const quantised_group& x, const tile_output& out) {
  for (int row = 0; row < x.rows; row += rows_at_once) {
    const int left = x.rows - row;
    with_constant<rows_at_once>(
        left < rows_at_once ? left : rows_at_once, [&](auto r) {
          tile_rows<K, decltype(r)::value>(tile, blocks, x, row, out);
        });
  }
}

constexpr kernel_table table = make_table<avx2_lanes>(
    quantised_weights<kind::q8_0>, quantised_weights<kind::q4_0>,
    quantised_weights<kind::q4_1>);

} // namespace

const kernel_table& avx2_kernels() {
  return table;
}

} // namespace troupe::ops::cpu
