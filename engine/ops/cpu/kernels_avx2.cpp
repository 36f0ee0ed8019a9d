#include "engine/ops/cpu/lane_kernels.hpp"
#include "engine/ops/cpu/lanes_avx2.hpp"

namespace troupe::ops::cpu {
namespace {

constexpr int rows_at_once = 4;

__m256i four_columns(const std::int8_t* q) {
  int word;
  __builtin_memcpy(&word, q, sizeof word);
  return _mm256_set1_epi32(word);
}

/// In every lane the sums of columns 0-15 and 16-31, 16 bits each.
__m256i both_sums(const block_scale& s) {
  int word;
  __builtin_memcpy(&word, s.sums, sizeof word);
  return _mm256_set1_epi32(word);
}

__m256 eight_halves(const std::byte* from) {
  return _mm256_cvtph_ps(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

template <bool Signed>
__m256i eight_bytes(const std::byte* from) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return Signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes);
}

/// Lanes of two 16-bit numbers: of small integers x and y.
__m256i paired(__m256i x, __m256i y) {
  return _mm256_blend_epi16(x, _mm256_slli_epi32(y, 16), 0xaa);
}

/// The scales of eight outputs for a block; what a format lacks is not set.
struct half_scales {
  __m256 scale;
  __m256 minimum;
  // With two scales, as pairs of 16-bit numbers:
  __m256i first;    ///< the scale of columns 0-15, twice
  __m256i last;     ///< of columns 16-31, twice
  __m256i zeros;    ///< both, times the integer that means 0
  __m256i minimums; ///< both minimums
};

template <tile_format F>
inline half_scales load_scales(const std::byte* tile, std::int64_t b,
                               int half) {
  half_scales out;
  const std::byte* block = tile + scales_at(F, b);
  const std::byte* halves =
      (super_blocks(F) ? tile + super_scales_at(F, b) : block) + half * 16;
  out.scale = eight_halves(halves);
  if constexpr (F.scales != scale_form::half &&
                F.scales != scale_form::two_bytes)
    out.minimum = eight_halves(halves + 32);
  if constexpr (!super_blocks(F))
    return out;
  constexpr bool has_sign = F.scales == scale_form::two_bytes;
  __m256i x = eight_bytes<has_sign>(block + half * 8);
  __m256i y = eight_bytes<has_sign>(block + 16 + half * 8);
  if constexpr (F.scales == scale_form::byte_minimum) {
    out.scale = _mm256_mul_ps(out.scale, _mm256_cvtepi32_ps(x));
    out.minimum = _mm256_mul_ps(out.minimum, _mm256_cvtepi32_ps(y));
    return out;
  }
  if constexpr (F.scales == scale_form::two_nibbles) {
    out.minimums = paired(_mm256_srli_epi32(x, 4), _mm256_srli_epi32(y, 4));
    x = _mm256_and_si256(x, _mm256_set1_epi32(15));
    y = _mm256_and_si256(y, _mm256_set1_epi32(15));
  }
  out.first = paired(x, x);
  out.last = paired(y, y);
  out.zeros = _mm256_mullo_epi16(paired(x, y), _mm256_set1_epi16(F.zero));
  return out;
}

/// Sums of w * q, w being what is stored, by groups of four columns. The sum of
/// a run of groups is made in 16 bits, two columns in each, which is as long as
/// it fits: 63 * 127 * 2 * 2, 31 * 127 * 2 * 4 and 15 * 127 * 2 * 8 are below
/// 2^15. Then it is widened and, with two scales, multiplied by its own.
template <tile_format F>
inline __m256i sum_products(const avx2_lanes::words (&w)[8],
                            const std::int8_t* q, const half_scales& scales) {
  constexpr int bits = F.low_bits + F.high_bits;
  constexpr int fits = bits == 6 ? 2 : bits == 5 ? 4 : 8;
  constexpr int run = two_scales(F) && fits > 4 ? 4 : fits;
  __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (int first = 0; first < 8; first += run) {
    __m256i pairs =
        _mm256_maddubs_epi16((__m256i)w[first], four_columns(q + 4 * first));
#pragma GCC unroll 7
    for (int g = first + 1; g < first + run; ++g)
      pairs = _mm256_add_epi16(
          pairs, _mm256_maddubs_epi16((__m256i)w[g], four_columns(q + 4 * g)));
    const __m256i factor = !two_scales(F) ? _mm256_set1_epi16(1)
                           : first < 4    ? scales.first
                                          : scales.last;
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, factor));
  }
  return sum;
}

/// The same of eight bits, less 128, as |w| * (q with w's sign):
/// 128 * 127 * 2 < 2^15, so nothing saturates.
inline __m256i sum_8_bit(const avx2_lanes::words (&w)[8],
                         const std::int8_t* q) {
  const __m256i flip = _mm256_set1_epi8(-128);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int g = 0; g < 8; ++g) {
    const __m256i weights = _mm256_xor_si256((__m256i)w[g], flip);
    const __m256i signed_q = _mm256_sign_epi8(four_columns(q + 4 * g), weights);
    const __m256i pairs =
        _mm256_maddubs_epi16(_mm256_abs_epi8(weights), signed_q);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
  }
  return sum;
}

/// i of the contract (kernels.hpp).
template <tile_format F>
inline __m256i block_sum(const avx2_lanes::words (&w)[8], const std::int8_t* q,
                         const block_scale& s, const half_scales& scales) {
  if constexpr (F.zero == 128)
    return sum_8_bit(w, q);
  const __m256i sum = sum_products<F>(w, q, scales);
  if constexpr (F.zero == 0)
    return sum;
  if constexpr (two_scales(F))
    return _mm256_sub_epi32(sum, _mm256_madd_epi16(scales.zeros, both_sums(s)));
  return _mm256_add_epi32(sum, _mm256_set1_epi32(F.zero / 8 * s.minus_8));
}

template <tile_format F>
inline __m256 add_block(const avx2_lanes::words (&w)[8], const std::int8_t* q,
                        const block_scale& s, const half_scales& scales,
                        __m256 sums) {
  const __m256 d = _mm256_set1_ps(s.d);
  sums = _mm256_fmadd_ps(_mm256_cvtepi32_ps(block_sum<F>(w, q, s, scales)),
                         _mm256_mul_ps(scales.scale, d), sums);
  if constexpr (F.scales == scale_form::half_minimum)
    return _mm256_fmadd_ps(scales.minimum, _mm256_set1_ps(s.d_sum), sums);
  if constexpr (F.scales == scale_form::byte_minimum)
    return _mm256_fnmadd_ps(scales.minimum, _mm256_set1_ps(s.d_sum), sums);
  if constexpr (F.scales == scale_form::two_nibbles)
    return _mm256_fnmadd_ps(
        _mm256_cvtepi32_ps(_mm256_madd_epi16(scales.minimums, both_sums(s))),
        _mm256_mul_ps(scales.minimum, d), sums);
  return sums;
}

/// Eight outputs (half 0 or 1 of the tile) of R rows.
template <tile_format F, int R>
inline void half_rows(const std::byte* tile, std::int64_t blocks,
                      const quantised_group& x, int row, int half,
                      __m256 (&sums)[R]) {
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
    sums[r] = _mm256_setzero_ps();
  for (std::int64_t b = 0; b < blocks; ++b) {
    if (half == 0)
      prefetch_ahead<avx2_lanes, F>(tile, b);
    avx2_lanes::words w[8];
    unpack<avx2_lanes, F>(tile + values_at(F, b) + half * 32, w);
    const half_scales scales = load_scales<F>(tile, b, half);
    const auto at = b * x.rows + row;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
      sums[r] = add_block<F>(w, x.q + (at + r) * block_columns, x.scale[at + r],
                             scales, sums[r]);
  }
}

template <tile_format F, int R>
void tile_rows(const std::byte* tile, std::int64_t blocks,
               const quantised_group& x, int row, const tile_output& out) {
  __m256 first[R], second[R];
  half_rows<F, R>(tile, blocks, x, row, 0, first);
  half_rows<F, R>(tile, blocks, x, row, 1, second);
  for (int r = 0; r < R; ++r)
    finish_row<avx2_lanes>(out, row + r, {first[r], second[r]});
}

template <tile_format F>
struct weights {
  static void run(const std::byte* tile, std::int64_t blocks,
                  const quantised_group& x, const tile_output& out) {
    for (int row = 0; row < x.rows; row += rows_at_once) {
      const int left = x.rows - row;
      with_constant<rows_at_once>(
          left < rows_at_once ? left : rows_at_once, [&](auto r) {
            tile_rows<F, decltype(r)::value>(tile, blocks, x, row, out);
          });
    }
  }
};

constexpr kernel_table table = make_table<avx2_lanes, weights>();

} // namespace

const kernel_table& avx2_kernels() {
  return table;
}

} // namespace troupe::ops::cpu
