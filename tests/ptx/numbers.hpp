#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

// Numbers as the PTX ISA has them, and how they are converted.

namespace troupe::ptx {

inline constexpr std::uint32_t nan_bits_f32 = 0x7fffffff;
inline constexpr std::uint16_t nan_bits_16 = 0x7fff; ///< f16 and bf16
inline constexpr std::uint64_t nan_bits_f64 = 0x7ff8000000000000;

inline float canonical(float x) {
  return x == x ? x : std::bit_cast<float>(nan_bits_f32);
}
inline double canonical(double x) {
  return x == x ? x : std::bit_cast<double>(nan_bits_f64);
}

/// Subnormal numbers become 0 of their sign (.ftz).
inline float flushed(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return std::bit_cast<float>((bits & 0x7f800000u) == 0 ? bits & 0x80000000u
                                                        : bits);
}

/// A float's magnitude in units of 2^(exponent of the result's least bit), to
/// the nearest, ties to even. `least`: of the format's smallest number, as an
/// exponent of 2; `digits`: those of its mantissa without the hidden one. Gives
/// the bits of exponent and mantissa as if there were no greatest exponent.
inline std::uint32_t rounded_magnitude(std::uint32_t magnitude, int digits,
                                       int least) {
  const int exponent = static_cast<int>(magnitude >> 23);
  const std::uint64_t mantissa =
      exponent == 0 ? magnitude : (magnitude & 0x7fffffu) | 0x800000u;
  // It is mantissa * 2^unit.
  const int unit = (exponent == 0 ? 1 : exponent) - 150;
  // A normal result keeps `digits` + 1 of the 24 digits.
  const int of_normal = unit + 23 - digits;
  const int to = of_normal > least ? of_normal : least;
  const int shift = to - unit;
  if (shift > 40)
    return 0;
  std::uint64_t kept = mantissa;
  if (shift > 0) {
    kept = mantissa >> shift;
    const std::uint64_t rest = mantissa & ((std::uint64_t{1} << shift) - 1);
    const std::uint64_t half = std::uint64_t{1} << (shift - 1);
    if (rest > half || (rest == half && (kept & 1) != 0))
      ++kept;
  } else {
    kept <<= -shift;
  }
  // A hidden digit is the exponent's first unit; a carry moves into it.
  return static_cast<std::uint32_t>(
      kept + (static_cast<std::uint64_t>(to - least) << digits));
}

/// Rounded to nearest even; too large ones become infinite.
inline std::uint16_t f16_of(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u)
    return nan_bits_16;
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
  if (magnitude >= 0x47800000u) // 2^16
    return sign | 0x7c00u;
  return static_cast<std::uint16_t>(sign |
                                    rounded_magnitude(magnitude, 10, -24));
}

/// Without branches, for many at once.
inline float float_of_f16(std::uint16_t x) {
  const std::uint32_t magnitude = x & 0x7fffu;
  const std::uint32_t mantissa = x & 0x3ffu;
  const auto subnormal = std::bit_cast<std::uint32_t>(
      static_cast<float>(static_cast<std::int32_t>(mantissa)) * 0x1p-24f);
  const std::uint32_t finite =
      magnitude < 0x400u ? subnormal : (magnitude << 13) + (112u << 23);
  const std::uint32_t number = magnitude == 0x7c00u ? 0x7f800000u : finite;
  const std::uint32_t sign = std::uint32_t{x & 0x8000u} << 16;
  return std::bit_cast<float>(magnitude > 0x7c00u ? nan_bits_f32
                                                  : sign | number);
}

inline std::uint16_t bf16_of(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return nan_bits_16;
  const std::uint32_t rest = bits & 0xffffu;
  const std::uint32_t kept = bits >> 16;
  const bool up = rest > 0x8000u || (rest == 0x8000u && (kept & 1) != 0);
  return static_cast<std::uint16_t>(kept + (up ? 1 : 0));
}

inline float float_of_bf16(std::uint16_t x) {
  return canonical(std::bit_cast<float>(std::uint32_t{x} << 16));
}

/// e4m3 as .satfinite has it: too large ones, and infinity, become 448.
inline std::uint8_t e4m3_of(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u)
    return 0x7f;
  const auto sign = static_cast<std::uint8_t>(bits >> 24 & 0x80u);
  if (magnitude >= 0x44000000u) // 512
    return sign | 0x7e;
  const auto code = rounded_magnitude(magnitude, 3, -9);
  return static_cast<std::uint8_t>(sign | (code > 0x7e ? 0x7e : code));
}

inline float float_of_e4m3(std::uint8_t x) {
  const int exponent = x >> 3 & 15;
  const int mantissa = x & 7;
  if (exponent == 15 && mantissa == 7)
    return std::bit_cast<float>(nan_bits_f32);
  const float magnitude =
      exponent == 0
          ? std::ldexp(static_cast<float>(mantissa), -9)
          : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (x & 0x80) != 0 ? -magnitude : magnitude;
}

/// e5m2 as .satfinite has it.
inline std::uint8_t e5m2_of(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u)
    return 0x7f;
  const auto sign = static_cast<std::uint8_t>(bits >> 24 & 0x80u);
  if (magnitude >= 0x47800000u)
    return sign | 0x7b;
  const auto code = rounded_magnitude(magnitude, 2, -16);
  return static_cast<std::uint8_t>(sign | (code > 0x7b ? 0x7b : code));
}

inline float float_of_e5m2(std::uint8_t x) {
  return float_of_f16(static_cast<std::uint16_t>(std::uint16_t{x} << 8));
}

/// x + y to the nearest odd number if it is no double: rounded once more, to
/// fewer digits, it is as if the sum had been rounded once.
inline double sum_to_odd(double x, double y) {
  const double sum = x + y;
  if (!(std::abs(sum) <= std::numeric_limits<double>::max()))
    return sum;
  const double of_y = sum - x;
  const double error = (x - (sum - of_y)) + (y - of_y);
  auto bits = std::bit_cast<std::uint64_t>(sum);
  if (error != 0 && (bits & 1) == 0)
    bits += (error > 0) == (sum > 0) ? 1 : static_cast<std::uint64_t>(-1);
  return std::bit_cast<double>(bits);
}

/// A double that is odd or exact, as a float that is so too.
inline float float_to_odd(double x) {
  const auto nearest = static_cast<float>(x);
  if (static_cast<double>(nearest) == x || !std::isfinite(nearest))
    return nearest;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if ((bits & 1) == 0)
    bits += (std::abs(x) > std::abs(static_cast<double>(nearest)))
                ? 1
                : static_cast<std::uint32_t>(-1);
  return std::bit_cast<float>(bits);
}

/// Least and greatest: a number if one of them is one, -0 below +0.
template <class Float>
Float least(Float a, Float b) {
  if (a != a)
    return canonical(b);
  if (b != b)
    return a;
  if (a == b)
    return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
template <class Float>
Float greatest(Float a, Float b) {
  if (a != a)
    return canonical(b);
  if (b != b)
    return a;
  if (a == b)
    return std::signbit(a) ? b : a;
  return a > b ? a : b;
}

} // namespace troupe::ptx
