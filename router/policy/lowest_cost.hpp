#pragma once

#include "router/policy/replica_snapshot.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace troupe::router {

/// What a replica's cache is thought to have.
struct cached_prefix {
  std::uint64_t tokens = 0; ///< of the prompt, from its start
  std::uint64_t blocks = 0; ///< of all prompts: who has least comes first
};

/// A token to compute counts so many times beside one that waits there: who
/// comes later waits for it too, and what is computed for the second time
/// pushes something else out of a cache (docs/policies.md has the search).
inline constexpr double computed_weight = 3;

/// The replica with the lowest cost of those with room: (computed_weight x
/// tokens still to compute + tokens outstanding there) x slowness. A match of
/// fewer tokens than `match_min` is none: for a few blocks that all prompts
/// begin with nobody goes where everybody goes. Equal costs: fewer choices,
/// then fewer blocks cached, so that new prefixes spread, then `random`.
/// `cached` has an entry per replica. Nothing if none has room.
std::optional<std::size_t> lowest_cost(std::span<const replica_snapshot>,
                                       std::span<const cached_prefix> cached,
                                       std::uint64_t tokens, double match_min,
                                       std::uint64_t random);

} // namespace troupe::router
