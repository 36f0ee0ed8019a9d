#pragma once

#include "engine/ops/cpu/half.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>

/// 16 lanes as an array: what the other two are measured against.
namespace troupe::ops::cpu {
namespace {

struct plain_lanes {
  struct f32 {
    float v[16];
  };
  static constexpr int product_rows = 4;  // of a float weight at once
  static constexpr int key_groups = 1;    // of 16 positions at once
  static constexpr int value_vectors = 1; // of 16 dimensions at once

  template <class F>
  static f32 each(F f) {
    f32 out;
    for (int i = 0; i < 16; ++i)
      out.v[i] = f(i);
    return out;
  }

  /// Asks for the cache line at `p`, which will be read soon.
  static void prefetch(const void*) {
  }
  static f32 zero() {
    return {};
  }
  static f32 set(float x) {
    return each([&](int) { return x; });
  }
  static f32 load(const float* x) {
    return each([&](int i) { return x[i]; });
  }
  static void store(float* x, const f32& a) {
    for (int i = 0; i < 16; ++i)
      x[i] = a.v[i];
  }
  static f32 load_f16(const std::uint16_t* x) {
    return each([&](int i) { return from_f16(x[i]); });
  }
  /// Of 16 pairs of bf16 the first ones (Which 0) or the second ones.
  template <int Which>
  static f32 load_bf16(const std::byte* pairs) {
    const auto* x = reinterpret_cast<const std::uint16_t*>(pairs);
    return each([&](int i) { return from_bf16(x[2 * i + Which]); });
  }
  /// To bf16, half to even; below 2^-56 to 0.
  static f32 rounded(const f32& a) {
    return each([&](int i) { return rounded_to_bf16(a.v[i]); });
  }
  static void store_f16(std::uint16_t* x, const f32& a) {
    for (int i = 0; i < 16; ++i)
      x[i] = to_f16(a.v[i]);
  }
  static f32 add(const f32& a, const f32& b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
  }
  static f32 sub(const f32& a, const f32& b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
  }
  static f32 mul(const f32& a, const f32& b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
  }
  static f32 div(const f32& a, const f32& b) {
    return each([&](int i) { return a.v[i] / b.v[i]; });
  }
  static f32 fma(const f32& a, const f32& b, const f32& c) {
    return each([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
  }
  /// a > b ? a : b, so b if either is NaN.
  static f32 max(const f32& a, const f32& b) {
    return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  /// a < b ? yes : no.
  static f32 if_less(const f32& a, const f32& b, const f32& yes,
                     const f32& no) {
    return each([&](int i) { return a.v[i] < b.v[i] ? yes.v[i] : no.v[i]; });
  }
  /// Lanes 0 to n - 1 of a, the others `fill`.
  static f32 keep(const f32& a, int n, float fill) {
    return each([&](int i) { return i < n ? a.v[i] : fill; });
  }
  /// 2^k for t = 1.5 * 2^23 + k.
  static f32 power_of_two(const f32& t) {
    return each([&](int i) {
      return std::bit_cast<float>((std::bit_cast<std::uint32_t>(t.v[i]) << 23) +
                                  0x3f800000u);
    });
  }
  static float square_root(float x) {
    return std::sqrt(x);
  }
  static std::uint32_t largest_magnitude_bits(const f32& a, const f32& b) {
    std::uint32_t most = 0;
    for (const f32* half : {&a, &b})
      for (float x : half->v) {
        const auto bits = std::bit_cast<std::uint32_t>(x) & 0x7fffffffu;
        most = bits > most ? bits : most;
      }
    return most;
  }
  /// Stores 32 lanes rounded half to even and the sums of the first and the
  /// last 16. |lane| < 128.
  static void store_rounded(std::int8_t* q, const f32& a, const f32& b,
                            std::int16_t (&sums)[2]) {
    for (int i = 0; i < 32; ++i) {
      const float x = i < 16 ? a.v[i] : b.v[i - 16];
      const float rounded = (x + 12582912.0f) - 12582912.0f;
      q[i] = static_cast<std::int8_t>(rounded);
      sums[i / 16] = static_cast<std::int16_t>(sums[i / 16] + q[i]);
    }
  }
};

} // namespace
} // namespace troupe::ops::cpu
