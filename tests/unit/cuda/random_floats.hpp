#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace troupe::test {

/// From the normal distribution.
inline std::vector<float> random_floats(std::size_t n, std::uint64_t seed) {
  std::mt19937_64 random{seed};
  std::normal_distribution<float> normal;
  std::vector<float> out(n);
  for (auto& x : out)
    x = normal(random);
  return out;
}

} // namespace troupe::test
