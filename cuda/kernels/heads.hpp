#pragma once

#include "cuda/kernels/numbers.hpp"

namespace troupe::cuda {

/// What becomes of the heads of q and k before they are attended by.
struct head_turns {
  const float* turns = nullptr; ///< by position: (cosine, sine) of each pair
  std::int32_t pairs = 0;       ///< numbers behind them stay as they are
  bool interleaved = false;     ///< pairs are neighbours, not i and i + pairs
};

/// By a warp: calls write(i, number) for each of a head's `d` numbers, which
/// may be where they came from.
template <class Threads, class Write>
TROUPE_KERNEL void turn_head(Threads& t, const head_turns& how,
                             std::int32_t position, const float* from,
                             std::int32_t d, Write write) {
  constexpr auto lanes = static_cast<std::int32_t>(warp_size);
  const auto lane = static_cast<std::int32_t>(t.index() % warp_size);
  const float* turn = how.turns + std::int64_t{position} * how.pairs * 2;
  for (std::int32_t i = lane; i < how.pairs; i += lanes) {
    const std::int32_t first = how.interleaved ? 2 * i : i;
    const std::int32_t second = how.interleaved ? 2 * i + 1 : i + how.pairs;
    const float cosine = turn[2 * i], sine = turn[2 * i + 1];
    const float a = from[first], b = from[second];
    write(first, a * cosine - b * sine);
    write(second, a * sine + b * cosine);
  }
  for (std::int32_t i = 2 * how.pairs + lane; i < d; i += lanes)
    write(i, from[i]);
}

} // namespace troupe::cuda
