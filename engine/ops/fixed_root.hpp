#pragma once

#include <algorithm>
#include <cstdint>

namespace troupe::ops {

/// The n-th root of a > 0 by bisection, to the last bit or two; n >= 1. The
/// same bits on every machine: additions and multiplications alone.
inline double fixed_root(double a, std::int32_t n) {
  double low = std::min(1.0, a), high = std::max(1.0, a);
  for (int step = 0; step < 200; ++step) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high)
      break;
    double power = middle;
    for (std::int32_t i = 1; i < n; ++i)
      power *= middle;
    (power < a ? low : high) = middle;
  }
  return high;
}

} // namespace troupe::ops
