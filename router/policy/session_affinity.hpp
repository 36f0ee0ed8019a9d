#pragma once

#include "router/policy/replica_snapshot.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace troupe::router {

/// A session's replica: consistent hashing by highest random weight (Thaler and
/// Ravishankar, 1998) with bounded load (Mirrokni, Thorup and Zadimoghaddam,
/// 2018). Each session has an order of all replicas, the same at every router;
/// the first in it that has room and not too much more than its share takes the
/// choice, or, if all have, the first with room. A replica that comes or goes
/// moves only the sessions that are, or were, its own. Nothing if none has
/// room.
std::optional<std::size_t> session_affinity(std::span<const replica_snapshot>,
                                            std::uint64_t session);

/// Choices times slowness that a replica may have and still be given one more
/// for its session: a quarter above its share of all, `slack` at least.
inline constexpr double session_share = 1.25;
inline constexpr double session_slack = 8;

} // namespace troupe::router
