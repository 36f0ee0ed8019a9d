#pragma once

#include "engine/ops/tensor.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

/// What the benchmarks of the kernels share.
namespace troupe::bench {

/// Seconds of a clock that only goes forward.
inline double now() {
  using seconds = std::chrono::duration<double>;
  return seconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Random blocks. No byte is above 0x1f, so every scale in them is finite and
/// small wherever its format has it.
inline std::vector<std::byte> random_bytes(ops::element_type type,
                                           std::int64_t elements) {
  static std::uint64_t state = 88172645463325252ull;
  const auto layout = ops::layout_of(type);
  std::vector<std::byte> bytes(elements / layout.elements * layout.bytes);
  for (auto& byte : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    byte = static_cast<std::byte>(state >> 32 & 0x1f);
  }
  return bytes;
}

} // namespace troupe::bench
