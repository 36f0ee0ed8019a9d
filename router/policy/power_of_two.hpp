#pragma once

#include "router/policy/replica_snapshot.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace troupe::router {

/// Two different draws out of the replicas that have room; the one that would
/// have less work with `more` tokens wins, then the one with fewer choices,
/// then the first draw. `random` is uniform over all 64-bit numbers. Nothing if
/// none has room.
std::optional<std::size_t> power_of_two(std::span<const replica_snapshot>,
                                        std::uint64_t random,
                                        std::uint64_t more = 0);

} // namespace troupe::router
