#pragma once

#include <cmath>
#include <cstddef>

namespace troupe::protocol {

/// Times are counted by size: place i holds those of up to `latency_bound(i)`
/// seconds, the last one all others too. Each bound is a quarter above the one
/// before, from a millisecond to half a minute and more.
inline constexpr std::size_t latency_places = 48;

inline double latency_bound(std::size_t place) {
  return 0.001 * std::pow(1.25, static_cast<double>(place));
}

inline std::size_t latency_place(double seconds) {
  if (!(seconds > 0.001))
    return 0;
  auto place = std::ceil(std::log(seconds / 0.001) / std::log(1.25) - 1e-9);
  return place < latency_places ? static_cast<std::size_t>(place)
                                : latency_places - 1;
}

} // namespace troupe::protocol
