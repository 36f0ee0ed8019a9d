#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "engine/engine.hpp"

namespace troupe::replica {

/// Writes what the engine says of itself into a report's load; its `sequence`
/// stays.
void read_load(const engine::stats& from, protocol::replica_load& to);

/// Choices that routers are to give it at once: max_num_seqs if that is given,
/// on a CPU at most 32 otherwise, since from there on more of them make no more
/// tokens. 0 = as many as there are: a model of vectors takes whole texts.
std::uint32_t choices_at_once(const protocol::replica_spec&,
                              const engine::description&);

} // namespace troupe::replica
