#pragma once

#include "engine/ops/cpu/bf16_tile.hpp"

#include <cstddef>
#include <cstdint>
#include <immintrin.h>

/// 16 lanes as two AVX2 registers. See lanes_plain.hpp for the meanings.
namespace troupe::ops::cpu {
namespace {

struct avx2_lanes {
  struct f32 {
    __m256 a, b;
  };
  /// Bytes of eight outputs, four of each.
  typedef std::uint64_t words [[gnu::vector_size(32)]];
  static constexpr int product_rows = 6;
  static constexpr int key_groups = 1;
  static constexpr int value_vectors = 1;

  static void prefetch(const void* p) {
    _mm_prefetch(p, _MM_HINT_T0);
  }
  static f32 zero() {
    return {_mm256_setzero_ps(), _mm256_setzero_ps()};
  }
  static f32 set(float x) {
    return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
  }
  static f32 load(const float* x) {
    return {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)};
  }
  static void store(float* x, f32 v) {
    _mm256_storeu_ps(x, v.a);
    _mm256_storeu_ps(x + 8, v.b);
  }
  static __m128i load_8(const std::uint16_t* x) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  }
  static f32 load_f16(const std::uint16_t* x) {
    return {_mm256_cvtph_ps(load_8(x)), _mm256_cvtph_ps(load_8(x + 8))};
  }
  template <int Which>
  static __m256 eight_bf16(const std::byte* pairs) {
    const __m256i v =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pairs));
    return _mm256_castsi256_ps(
        Which == 0 ? _mm256_slli_epi32(v, 16)
                   : _mm256_and_si256(v, _mm256_set1_epi32(upper_half)));
  }
  template <int Which>
  static f32 load_bf16(const std::byte* pairs) {
    return {eight_bf16<Which>(pairs), eight_bf16<Which>(pairs + 32)};
  }
  static __m256 rounded(__m256 v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i magnitude =
        _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
    const __m256i odd =
        _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(
        bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    r = _mm256_and_si256(r, _mm256_set1_epi32(upper_half));
    const __m256i counts = _mm256_cmpgt_epi32(
        magnitude, _mm256_set1_epi32(static_cast<int>(least_rounded) - 1));
    const __m256i is_nan =
        _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7f800000));
    r = _mm256_blendv_epi8(r, _mm256_set1_epi32(0x7fc00000), is_nan);
    return _mm256_castsi256_ps(_mm256_and_si256(r, counts));
  }
  static f32 rounded(f32 v) {
    return {rounded(v.a), rounded(v.b)};
  }
  static void store_f16(std::uint16_t* x, f32 v) {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(x),
                     _mm256_cvtps_ph(v.a, nearest));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(x + 8),
                     _mm256_cvtps_ph(v.b, nearest));
  }
  static f32 add(f32 x, f32 y) {
    return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
  }
  static f32 sub(f32 x, f32 y) {
    return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
  }
  static f32 mul(f32 x, f32 y) {
    return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
  }
  static f32 div(f32 x, f32 y) {
    return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
  }
  static f32 fma(f32 x, f32 y, f32 z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  static f32 max(f32 x, f32 y) {
    return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
  }
  static __m256 choose(__m256 x, __m256 y, __m256 yes, __m256 no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(x, y, _CMP_LT_OQ));
  }
  static f32 if_less(f32 x, f32 y, f32 yes, f32 no) {
    return {choose(x.a, y.a, yes.a, no.a), choose(x.b, y.b, yes.b, no.b)};
  }
  static f32 keep(f32 v, int n, float fill) {
    const __m256i count = _mm256_set1_epi32(n);
    const __m256i first = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i second = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
    const __m256 other = _mm256_set1_ps(fill);
    const auto pick = [&](__m256 x, __m256i index) {
      return _mm256_blendv_ps(
          other, x, _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, index)));
    };
    return {pick(v.a, first), pick(v.b, second)};
  }
  static __m256 power(__m256 t) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(t), 23),
                         _mm256_set1_epi32(0x3f800000)));
  }
  static f32 power_of_two(f32 t) {
    return {power(t.a), power(t.b)};
  }
  static float square_root(float x) {
    return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
  }
  static __m256i magnitude(__m256 x) {
    return _mm256_and_si256(_mm256_castps_si256(x),
                            _mm256_set1_epi32(0x7fffffff));
  }
  static std::uint32_t largest_magnitude_bits(f32 x, f32 y) {
    const __m256i m =
        _mm256_max_epu32(_mm256_max_epu32(magnitude(x.a), magnitude(x.b)),
                         _mm256_max_epu32(magnitude(y.a), magnitude(y.b)));
    __m128i r = _mm_max_epu32(_mm256_castsi256_si128(m),
                              _mm256_extracti128_si256(m, 1));
    r = _mm_max_epu32(r, _mm_shuffle_epi32(r, 0x4e));
    r = _mm_max_epu32(r, _mm_shuffle_epi32(r, 0xb1));
    return static_cast<std::uint32_t>(_mm_cvtsi128_si32(r));
  }
  static std::int16_t total(__m256i x) {
    __m128i r = _mm_add_epi32(_mm256_castsi256_si128(x),
                              _mm256_extracti128_si256(x, 1));
    r = _mm_add_epi32(r, _mm_shuffle_epi32(r, 0x4e));
    r = _mm_add_epi32(r, _mm_shuffle_epi32(r, 0xb1));
    return static_cast<std::int16_t>(_mm_cvtsi128_si32(r));
  }
  static void store_rounded(std::int8_t* q, f32 x, f32 y,
                            std::int16_t (&sums)[2]) {
    const __m256i a = _mm256_cvtps_epi32(x.a), b = _mm256_cvtps_epi32(x.b);
    const __m256i c = _mm256_cvtps_epi32(y.a), d = _mm256_cvtps_epi32(y.b);
    const __m256i packed =
        _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q),
                        _mm256_permutevar8x32_epi32(packed, order));
    sums[0] = total(_mm256_add_epi32(a, b));
    sums[1] = total(_mm256_add_epi32(c, d));
  }
  static words load_words(const std::byte* from) {
    return (words)_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static words look_up(const std::uint8_t* table, words index) {
    const __m128i values =
        _mm_load_si128(reinterpret_cast<const __m128i*>(table));
    return (words)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values),
                                      (__m256i)index);
  }
};

} // namespace
} // namespace troupe::ops::cpu
