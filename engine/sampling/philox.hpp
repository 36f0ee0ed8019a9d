#pragma once

#include <array>
#include <cstdint>

namespace troupe::sampling {

/// Philox4x32-10: a random function of counter and key, without state
/// (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3",
/// 2011).
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

/// The number in [0, 1) that draws the token at `position` (of prompt and
/// output together) of a choice; 53 random bits. Whoever has the ids of a
/// choice can go on drawing where it stopped.
double uniform(std::uint64_t seed, std::uint32_t choice,
               std::uint32_t position);

} // namespace troupe::sampling
