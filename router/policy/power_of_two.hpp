#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace troupe::router {

/// What a router knows, by itself, of a replica that could take a choice.
struct replica_snapshot {
  std::uint32_t choices = 0; ///< sent to it and not ended
  /// Work that those still ask for: prompt tokens until the first token came,
  /// and the output that is to be expected.
  std::uint64_t tokens = 0;
  std::uint32_t choices_max = 0; ///< 0 = no bound
};

/// Two different draws out of the replicas that have room; the one with fewer
/// tokens outstanding wins, then the one with fewer choices, then the first
/// draw. `random` is uniform over all 64-bit numbers. Nothing if none has room.
std::optional<std::size_t> power_of_two(std::span<const replica_snapshot>,
                                        std::uint64_t random);

} // namespace troupe::router
