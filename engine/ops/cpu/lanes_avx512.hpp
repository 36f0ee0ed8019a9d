#pragma once

#include "engine/ops/cpu/bf16_tile.hpp"

#include <cstddef>
#include <cstdint>
#include <immintrin.h>

/// 16 lanes as one AVX-512 register. See lanes_plain.hpp for the meanings.
namespace troupe::ops::cpu {
namespace {

struct avx512_lanes {
  using f32 = __m512;
  /// Bytes of sixteen outputs, four of each.
  typedef std::uint64_t words [[gnu::vector_size(64)]];
  static constexpr int product_rows = 16;
  static constexpr int key_groups = 4;
  static constexpr int value_vectors = 4;

  static void prefetch(const void* p) {
    _mm_prefetch(p, _MM_HINT_T0);
  }
  static f32 zero() {
    return _mm512_setzero_ps();
  }
  static f32 set(float x) {
    return _mm512_set1_ps(x);
  }
  static f32 load(const float* x) {
    return _mm512_loadu_ps(x);
  }
  static void store(float* x, f32 v) {
    _mm512_storeu_ps(x, v);
  }
  static __m256i load_16(const std::uint16_t* x) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  }
  static f32 load_f16(const std::uint16_t* x) {
    return _mm512_cvtph_ps(load_16(x));
  }
  template <int Which>
  static f32 load_bf16(const std::byte* pairs) {
    const __m512i v = _mm512_loadu_si512(pairs);
    return _mm512_castsi512_ps(
        Which == 0 ? _mm512_slli_epi32(v, 16)
                   : _mm512_and_si512(v, _mm512_set1_epi32(upper_half)));
  }
  static f32 rounded(f32 v) {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i magnitude =
        _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
    const __m512i odd =
        _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(
        bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    r = _mm512_and_si512(r, _mm512_set1_epi32(upper_half));
    r = _mm512_mask_blend_epi32(
        _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x7f800000)), r,
        _mm512_set1_epi32(0x7fc00000));
    return _mm512_castsi512_ps(_mm512_maskz_mov_epi32(
        _mm512_cmpge_epi32_mask(magnitude, _mm512_set1_epi32(least_rounded)),
        r));
  }
  static void store_f16(std::uint16_t* x, f32 v) {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(x),
                        _mm512_cvtps_ph(v, nearest));
  }
  static f32 add(f32 x, f32 y) {
    return _mm512_add_ps(x, y);
  }
  static f32 sub(f32 x, f32 y) {
    return _mm512_sub_ps(x, y);
  }
  static f32 mul(f32 x, f32 y) {
    return _mm512_mul_ps(x, y);
  }
  static f32 div(f32 x, f32 y) {
    return _mm512_div_ps(x, y);
  }
  static f32 fma(f32 x, f32 y, f32 z) {
    return _mm512_fmadd_ps(x, y, z);
  }
  static f32 max(f32 x, f32 y) {
    return _mm512_max_ps(x, y);
  }
  static f32 if_less(f32 x, f32 y, f32 yes, f32 no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_LT_OQ), no, yes);
  }
  static f32 keep(f32 v, int n, float fill) {
    const auto mask = n >= 16 ? 0xffffu : (1u << n) - 1;
    return _mm512_mask_blend_ps(static_cast<__mmask16>(mask), set(fill), v);
  }
  static f32 power_of_two(f32 t) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(t), 23),
                         _mm512_set1_epi32(0x3f800000)));
  }
  static float square_root(float x) {
    return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
  }
  static std::uint32_t largest_magnitude_bits(f32 x, f32 y) {
    const __m512i mask = _mm512_set1_epi32(0x7fffffff);
    return _mm512_reduce_max_epu32(
        _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(x), mask),
                         _mm512_and_si512(_mm512_castps_si512(y), mask)));
  }
  static void store_rounded(std::int8_t* q, f32 x, f32 y,
                            std::int16_t (&sums)[2]) {
    const __m512i a = _mm512_cvtps_epi32(x), b = _mm512_cvtps_epi32(y);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtepi32_epi8(a));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16),
                     _mm512_cvtepi32_epi8(b));
    sums[0] = static_cast<std::int16_t>(_mm512_reduce_add_epi32(a));
    sums[1] = static_cast<std::int16_t>(_mm512_reduce_add_epi32(b));
  }
  static words load_words(const std::byte* from) {
    return (words)_mm512_loadu_si512(from);
  }
  static words look_up(const std::uint8_t* table, words index) {
    const __m128i values =
        _mm_load_si128(reinterpret_cast<const __m128i*>(table));
    return (words)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(values),
                                      (__m512i)index);
  }
};

} // namespace
} // namespace troupe::ops::cpu
