#include "engine/ops/cpu/lane_kernels.hpp"
#include "engine/ops/cpu/lanes_avx512.hpp"

namespace troupe::ops::cpu {
namespace {

__m512 sixteen_halves(const std::byte* from) {
  return _mm512_cvtph_ps(
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

template <bool Signed>
__m512i sixteen_bytes(const std::byte* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return Signed ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes);
}

/// In every lane the sums of columns 0-15 and 16-31, 16 bits each.
__m512i both_sums(const block_scale& s) {
  int word;
  __builtin_memcpy(&word, s.sums, sizeof word);
  return _mm512_set1_epi32(word);
}

/// sum += w * four columns of q, in each lane the same four. g++ 12 would load
/// and broadcast them by an instruction of their own, a quarter slower.
inline void add_products(__m512i& sum, avx512_lanes::words w,
                         const std::int8_t* q) {
  using word [[gnu::may_alias, gnu::aligned(1)]] = int;
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(sum)
      : "v"(w), "m"(*reinterpret_cast<const word*>(q)));
}

/// The scales of sixteen outputs for a block; what a format lacks is not set.
struct tile_scales {
  __m512 scale;
  __m512 minimum;
  // With two scales:
  __m512 first;     ///< of columns 0-15
  __m512 last;      ///< of columns 16-31
  __m512i minimums; ///< both, 16 bits each
};

template <tile_format F>
inline tile_scales load_scales(const std::byte* tile, std::int64_t b) {
  tile_scales out;
  const std::byte* block = tile + scales_at(F, b);
  const std::byte* halves =
      super_blocks(F) ? tile + super_scales_at(F, b) : block;
  out.scale = sixteen_halves(halves);
  if constexpr (F.scales != scale_form::half &&
                F.scales != scale_form::two_bytes)
    out.minimum = sixteen_halves(halves + 32);
  if constexpr (!super_blocks(F))
    return out;
  constexpr bool has_sign = F.scales == scale_form::two_bytes;
  __m512i x = sixteen_bytes<has_sign>(block);
  __m512i y = sixteen_bytes<has_sign>(block + 16);
  if constexpr (F.scales == scale_form::byte_minimum) {
    out.scale = _mm512_mul_ps(out.scale, _mm512_cvtepi32_ps(x));
    out.minimum = _mm512_mul_ps(out.minimum, _mm512_cvtepi32_ps(y));
    return out;
  }
  if constexpr (F.scales == scale_form::two_nibbles) {
    out.minimums =
        _mm512_or_si512(_mm512_srli_epi32(x, 4),
                        _mm512_slli_epi32(_mm512_srli_epi32(y, 4), 16));
    x = _mm512_and_si512(x, _mm512_set1_epi32(15));
    y = _mm512_and_si512(y, _mm512_set1_epi32(15));
  }
  out.first = _mm512_cvtepi32_ps(x);
  out.last = _mm512_cvtepi32_ps(y);
  return out;
}

/// What a row's sum of w * q starts from: the weights' offset is taken off
/// here. With two scales there are two sums, of columns 0-15 and 16-31.
template <tile_format F>
inline __m512i offset(const block_scale& s, int which) {
  if constexpr (F.zero == 0)
    return _mm512_setzero_si512();
  else if constexpr (two_scales(F))
    return _mm512_madd_epi16(both_sums(s),
                             which == 0 ? _mm512_set1_epi32(-F.zero & 0xffff)
                                        : _mm512_set1_epi32(-F.zero * 65536));
  else if constexpr (F.zero == 128)
    return _mm512_set1_epi32(s.minus_128);
  else
    return _mm512_set1_epi32(F.zero / 8 * s.minus_8);
}

/// float(i) of the contract (kernels.hpp) from the sum, or from the two sums of
/// columns 0-15 and 16-31: all that is computed here is exact.
template <tile_format F, int N>
inline __m512 whole_sum(const __m512i (&sum)[N], const tile_scales& scales) {
  const __m512 first = _mm512_cvtepi32_ps(sum[0]);
  if constexpr (N == 1)
    return first;
  else
    return _mm512_fmadd_ps(
        first, scales.first,
        _mm512_mul_ps(_mm512_cvtepi32_ps(sum[1]), scales.last));
}

/// One block of B neighbouring rows; their integer sums are independent, which
/// hides the latency of each.
template <tile_format F, int B>
inline void add_block(const avx512_lanes::words (&w)[8],
                      const tile_scales& scales, const std::int8_t* q,
                      const block_scale* s, __m512* sums) {
  constexpr int parts = two_scales(F) ? 2 : 1;
  __m512i i[B][parts];
#pragma GCC unroll 4
  for (int r = 0; r < B; ++r)
#pragma GCC unroll 2
    for (int p = 0; p < parts; ++p)
      i[r][p] = offset<F>(s[r], p);
#pragma GCC unroll 8
  for (int g = 0; g < 8; ++g)
#pragma GCC unroll 4
    for (int r = 0; r < B; ++r)
      add_products(i[r][g * parts / 8], w[g], q + r * block_columns + 4 * g);
#pragma GCC unroll 4
  for (int r = 0; r < B; ++r) {
    const __m512 d = _mm512_set1_ps(s[r].d);
    sums[r] = _mm512_fmadd_ps(whole_sum<F>(i[r], scales),
                              _mm512_mul_ps(scales.scale, d), sums[r]);
    if constexpr (F.scales == scale_form::half_minimum)
      sums[r] =
          _mm512_fmadd_ps(scales.minimum, _mm512_set1_ps(s[r].d_sum), sums[r]);
    if constexpr (F.scales == scale_form::byte_minimum)
      sums[r] =
          _mm512_fnmadd_ps(scales.minimum, _mm512_set1_ps(s[r].d_sum), sums[r]);
    if constexpr (F.scales == scale_form::two_nibbles)
      sums[r] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(_mm512_madd_epi16(
                                     scales.minimums, both_sums(s[r]))),
                                 _mm512_mul_ps(scales.minimum, d), sums[r]);
  }
}

template <tile_format F, int R>
void tile_rows(const std::byte* tile, std::int64_t blocks,
               const quantised_group& x, const tile_output& out) {
  constexpr int rest = R % 4;
  __m512 sums[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    sums[r] = _mm512_setzero_ps();
  for (std::int64_t b = 0; b < blocks; ++b) {
    prefetch_ahead<avx512_lanes, F>(tile, b);
    avx512_lanes::words w[8];
    unpack<avx512_lanes, F>(tile + values_at(F, b), w);
    const tile_scales scales = load_scales<F>(tile, b);
    const std::int8_t* q = x.q + b * R * block_columns;
    const block_scale* s = x.scale + b * R;
#pragma GCC unroll 4
    for (int r = 0; r < R - rest; r += 4)
      add_block<F, 4>(w, scales, q + r * block_columns, s + r, sums + r);
    if constexpr (rest > 0)
      add_block<F, rest>(w, scales, q + (R - rest) * block_columns,
                         s + (R - rest), sums + (R - rest));
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    finish_row<avx512_lanes>(out, r, sums[r]);
}

template <tile_format F>
struct weights {
  static void run(const std::byte* tile, std::int64_t blocks,
                  const quantised_group& x, const tile_output& out) {
    with_constant<group_rows>(x.rows, [&](auto r) {
      tile_rows<F, decltype(r)::value>(tile, blocks, x, out);
    });
  }
};

constexpr kernel_table table = make_table<avx512_lanes, weights>();

} // namespace

const kernel_table& avx512_kernels() {
  return table;
}

} // namespace troupe::ops::cpu
