#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "engine/engine.hpp"

namespace troupe::replica {

/// Writes what the engine says of itself into a report's load; its `sequence`
/// stays.
void read_load(const engine::stats& from, protocol::replica_load& to);

} // namespace troupe::replica
