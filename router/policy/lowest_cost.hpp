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

/// The replica with room that would be done first: cost = (tokens still to
/// compute + tokens outstanding there) x slowness. Equal costs: fewer choices,
/// then fewer blocks cached, so that new prefixes spread, then `random`.
/// `cached` has an entry per replica. Nothing if none has room.
std::optional<std::size_t> lowest_cost(std::span<const replica_snapshot>,
                                       std::span<const cached_prefix> cached,
                                       std::uint64_t tokens,
                                       std::uint64_t random);

} // namespace troupe::router
