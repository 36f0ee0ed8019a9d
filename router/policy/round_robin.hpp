#pragma once

#include "router/policy/replica_snapshot.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace troupe::router {

/// The next replica with room after the one of incarnation `last`, in the order
/// of incarnations, which are random, and round again: no matter which replicas
/// have come and gone meanwhile. Nothing if none has room.
std::optional<std::size_t> round_robin(std::span<const replica_snapshot>,
                                       std::uint64_t last);

} // namespace troupe::router
