#pragma once

#include "cuda/kernels/threads.hpp"

#include <cmath>
#include <cstring>

namespace troupe::cuda {

/// Stored numbers: 8 bits, 16, or 32.
struct f16 {
  std::uint16_t bits;
};
struct bf16 {
  std::uint16_t bits;
};
/// Sign, four bits of exponent, three of mantissa: up to 448, no infinity.
struct e4m3 {
  std::uint8_t bits;
};
/// The same, of a weight whose outputs have a scale for each ops::scale_cols
/// columns.
struct block_e4m3 : e4m3 {};

TROUPE_KERNEL float float_of_bits(std::uint32_t bits) {
  float out;
  memcpy(&out, &bits, sizeof out);
  return out;
}

TROUPE_KERNEL std::uint32_t bits_of(float value) {
  std::uint32_t out;
  memcpy(&out, &value, sizeof out);
  return out;
}

TROUPE_KERNEL float to_float(float x) {
  return x;
}

TROUPE_KERNEL float to_float(bf16 x) {
  return float_of_bits(std::uint32_t{x.bits} << 16);
}

/// Exact: a subnormal half is scaled by a multiplication.
TROUPE_KERNEL float to_float(f16 x) {
#ifdef __CUDA_ARCH__
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(x.bits));
  return out;
#else
  const std::uint32_t sign = std::uint32_t{x.bits & 0x8000u} << 16;
  const std::uint32_t rest = x.bits & 0x7fffu;
  if (rest >= 0x7c00u) // infinite or no number
    return float_of_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  // 2^112: the exponents' distance.
  return float_of_bits(sign | rest << 13) * float_of_bits(0x77800000u);
#endif
}

/// Exact.
TROUPE_KERNEL float to_float(e4m3 x) {
  const std::uint32_t sign = (x.bits & 0x80u) << 24;
  const std::uint32_t rest = x.bits & 0x7fu;
  if (rest == 0x7fu)
    return float_of_bits(sign | 0x7fc00000u); // no number
  // 2^120: the exponents' distance.
  return float_of_bits(sign | rest << 20) * float_of_bits(0x7b800000u);
}

/// Rounds to even; what is too large becomes 448.
TROUPE_KERNEL e4m3 to_e4m3(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t sign = bits >> 24 & 0x80u;
  const std::uint32_t rest = bits & 0x7fffffffu;
  std::uint32_t out;
  if (rest > 0x7f800000u) {
    out = 0x7fu;
  } else if (rest >= 0x43e00000u) { // 448
    out = 0x7eu;
  } else if (rest < 0x3c800000u) { // subnormal: the sum rounds
    const float magic = 16384.0f;
    out = bits_of(float_of_bits(rest) + magic) - bits_of(magic);
  } else {
    const std::uint32_t odd = rest >> 20 & 1u;
    out = (rest - 0x3c000000u + 0x7ffffu + odd) >> 20;
  }
  return {static_cast<std::uint8_t>(sign | out)};
}

/// Rounds to even; what is too large becomes infinite. What is no number stays
/// none, with other bits on a GPU.
TROUPE_KERNEL f16 to_f16(float value) {
#ifdef __CUDA_ARCH__
  f16 of_device;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(of_device.bits) : "f"(value));
  return of_device;
#else
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  const std::uint32_t rest = bits & 0x7fffffffu;
  std::uint32_t out;
  if (rest > 0x7f800000u) {
    out = 0x7e00u;
  } else if (rest >= 0x477ff000u) {
    out = 0x7c00u;
  } else if (rest < 0x38800000u) { // subnormal: the sum rounds
    const float magic = 0.5f;
    out = bits_of(float_of_bits(rest) + magic) - bits_of(magic);
  } else {
    const std::uint32_t odd = rest >> 13 & 1u;
    out = (rest - 0x38000000u + 0xfffu + odd) >> 13;
  }
  return {static_cast<std::uint16_t>(sign | out)};
#endif
}

/// Rounds to even.
TROUPE_KERNEL bf16 to_bf16(float value) {
  std::uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return {static_cast<std::uint16_t>(bits >> 16 | 0x40u)}; // no number
  bits += 0x7fffu + (bits >> 16 & 1u);
  return {static_cast<std::uint16_t>(bits >> 16)};
}

/// 1 / x, which may lack 2^-22 of it, and is 0 from 2^126 on.
TROUPE_KERNEL float about_inverse(float x) {
#ifdef __CUDA_ARCH__
  return __fdividef(1.0f, x);
#else
  return 1.0f / x;
#endif
}

inline constexpr float log2_e = 1.4426950408889634f;

/// 2^x, which may lack 2^-22 of it, and is 0 where it is below 2^-126.
TROUPE_KERNEL float about_power(float x) {
#ifdef __CUDA_ARCH__
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
#else
  return exp2f(x);
#endif
}

/// The lower halves of two words in one, and the upper ones, that of the first
/// in its lower half.
TROUPE_KERNEL std::uint32_t lower_halves(std::uint32_t a, std::uint32_t b) {
#ifdef __CUDA_ARCH__
  return __byte_perm(a, b, 0x5410);
#else
  return (a & 0xffffu) | b << 16;
#endif
}
TROUPE_KERNEL std::uint32_t upper_halves(std::uint32_t a, std::uint32_t b) {
#ifdef __CUDA_ARCH__
  return __byte_perm(a, b, 0x7632);
#else
  return a >> 16 | (b & 0xffff0000u);
#endif
}

inline constexpr float f16_most = 65504.0f;

/// No number becomes 0, and what is beyond f16 its greatest.
TROUPE_KERNEL float finite(float x) {
  if (x != x)
    return 0.0f;
  return x > f16_most ? f16_most : x < -f16_most ? -f16_most : x;
}

/// Rounded as the type says.
TROUPE_KERNEL void store(float value, f16& to) {
  to = to_f16(value);
}
TROUPE_KERNEL void store(float value, e4m3& to) {
  to = to_e4m3(value);
}

/// Two floats rounded to bf16, the first in the lower half.
TROUPE_KERNEL std::uint32_t to_bf16_pair(float low, float high) {
#ifdef __CUDA_ARCH__
  std::uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
#else
  return to_bf16(low).bits | std::uint32_t{to_bf16(high).bits} << 16;
#endif
}

/// The f16 of two e4m3 codes, the lower half that of the lower byte. Exact.
TROUPE_KERNEL std::uint32_t halves_of(std::uint16_t codes) {
  const auto half = [](std::uint32_t code) -> std::uint32_t {
    return to_f16(to_float(e4m3{static_cast<std::uint8_t>(code)})).bits;
  };
  return half(codes & 0xffu) | half(codes >> 8) << 16;
}

/// N numbers that lie at a multiple of their size: one read on a GPU.
template <class Stored, int N>
struct alignas(sizeof(Stored) * N) pack {
  Stored at[N];
};

template <int N, class Stored>
TROUPE_KERNEL void read_floats(const Stored* from, float* to) {
  // No more than 16 bytes are read at once.
  constexpr int n = sizeof(Stored) * N > 16 ? int{16 / sizeof(Stored)} : N;
  for (int i = 0; i < N; i += n) {
    const auto some = *reinterpret_cast<const pack<Stored, n>*>(from + i);
    for (int j = 0; j < n; ++j)
      to[i + j] = to_float(some.at[j]);
  }
}

} // namespace troupe::cuda
