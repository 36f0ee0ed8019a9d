#pragma once

#include <bit>
#include <cstdint>

/// Exponential and logarithm that give the same bits on every machine:
/// additions, multiplications and divisions in one written-down order, nothing
/// of libm. Compiled with -ffp-contract=off (DESIGN.md, "Exactness"). constexpr
/// makes them functions of a GPU too (cuda/kernels/draw.hpp).
namespace troupe::sampling {

inline constexpr double ln2 = 0.693147180559945309417232;

/// Where `fixed_exp` ends: e^x is taken to be 0 from here down.
inline constexpr double lowest_exponent = -700.0;

/// e^x for x in [lowest_exponent, 0], within a few units in the last place.
/// Without a branch, so that a loop over it becomes vector code.
///
/// x = n ln2 + r with |r| <= ln2 / 2; e^r by its Taylor series to degree 13.
constexpr double exp_in_range(double x) {
  constexpr double log2_e = 1.44269504088896340735992;
  constexpr double round_shift = 6755399441055744.0; // 1.5 * 2^52
  constexpr double ln2_high = 0x1.62e42fefap-1;      // exact times n
  constexpr double ln2_low = 0x1.cf79abc9e3b3ap-40;
  const double shifted = x * log2_e + round_shift;
  const double n = shifted - round_shift;
  const double r = (x - n * ln2_high) - n * ln2_low;
  double sum = 1.0 / 6227020800.0;
  sum = sum * r + 1.0 / 479001600.0;
  sum = sum * r + 1.0 / 39916800.0;
  sum = sum * r + 1.0 / 3628800.0;
  sum = sum * r + 1.0 / 362880.0;
  sum = sum * r + 1.0 / 40320.0;
  sum = sum * r + 1.0 / 5040.0;
  sum = sum * r + 1.0 / 720.0;
  sum = sum * r + 1.0 / 120.0;
  sum = sum * r + 1.0 / 24.0;
  sum = sum * r + 1.0 / 6.0;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  // The low bits of `shifted` hold n; they become the exponent of 2^n.
  const std::uint64_t exponent = std::bit_cast<std::uint64_t>(shifted) + 1023;
  return sum * std::bit_cast<double>(exponent << 52);
}

/// e^x for every x <= 0, minus infinity included.
constexpr double fixed_exp(double x) {
  return x > lowest_exponent ? exp_in_range(x) : 0.0;
}

/// Natural logarithm of a finite x >= 1.
///
/// x = m 2^n with m in [0.7, 1.5); log m = 2 atanh((m - 1) / (m + 1)).
constexpr double fixed_log(double x) {
  std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  auto n = static_cast<std::int64_t>(bits >> 52) - 1023;
  bits = (bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull;
  double m = std::bit_cast<double>(bits);
  if (m > 1.5) {
    m *= 0.5;
    ++n;
  }
  const double s = (m - 1.0) / (m + 1.0);
  const double s2 = s * s;
  double sum = 0;
  for (int k = 25; k >= 1; k -= 2)
    sum = sum * s2 + 1.0 / k;
  return static_cast<double>(n) * ln2 + 2.0 * s * sum;
}

} // namespace troupe::sampling
