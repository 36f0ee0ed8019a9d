#pragma once

#include "cuda/kernels/numbers.hpp"

namespace troupe::cuda {

/// What becomes of the heads of q and k before they are attended by.
struct head_turns {
  const float* turns = nullptr; ///< by position: (cosine, sine) of each pair
  std::int32_t pairs = 0;       ///< numbers behind them stay as they are
  bool interleaved = false;     ///< pairs are neighbours, not i and i + pairs
  /// Weights of an RMS norm of each head, before it turns; null: none.
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  float epsilon = 0;
};

/// By a warp: what a head's numbers are multiplied by in its norm.
template <class Threads>
TROUPE_KERNEL float norm_factor(Threads& t, const float* head, std::int32_t d,
                                float epsilon) {
  float squares = 0;
  for (auto i = static_cast<std::int32_t>(t.index() % warp_size); i < d;
       i += static_cast<std::int32_t>(warp_size))
    squares = fmaf(head[i], head[i], squares);
  return 1.0f / sqrtf(t.warp_sum(squares) / static_cast<float>(d) + epsilon);
}

/// By a warp: calls write(i, number) for each of a head's `d` numbers, which
/// may be where they came from. `norm` is one of `how`.
template <class Threads, class Write>
TROUPE_KERNEL void turn_head(Threads& t, const head_turns& how,
                             const float* norm, std::int32_t position,
                             const float* from, std::int32_t d, Write write) {
  constexpr auto lanes = static_cast<std::int32_t>(warp_size);
  const auto lane = static_cast<std::int32_t>(t.index() % warp_size);
  const float factor =
      norm != nullptr ? norm_factor(t, from, d, how.epsilon) : 1;
  const auto number = [&](std::int32_t i) {
    return norm != nullptr ? from[i] * factor * norm[i] : from[i];
  };
  const float* turn = how.turns + std::int64_t{position} * how.pairs * 2;
  for (std::int32_t i = lane; i < how.pairs; i += lanes) {
    const std::int32_t first = how.interleaved ? 2 * i : i;
    const std::int32_t second = how.interleaved ? 2 * i + 1 : i + how.pairs;
    const float cosine = turn[2 * i], sine = turn[2 * i + 1];
    const float a = number(first), b = number(second);
    write(first, a * cosine - b * sine);
    write(second, a * sine + b * cosine);
  }
  TROUPE_NO_UNROLL
  for (std::int32_t i = 2 * how.pairs + lane; i < d; i += lanes)
    write(i, number(i));
}

} // namespace troupe::cuda
