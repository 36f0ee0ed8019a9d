#pragma once

#include "actors/protocol/launch_record.hpp"
#include "actors/runtime/authority.hpp"
#include "engine/codec/error.hpp"
#include "engine/engine.hpp"

#include <caf/fwd.hpp>

namespace troupe::replica {

/// For the first of a replica's processes, which has fetched the model: tells
/// the others where it lies, and says in `with` where they meet. What they say
/// to each other before they are connected goes through the node agent.
result<engine::options> lead_ranks(caf::actor_system&,
                                   const protocol::launch_record&,
                                   engine::options with);

/// The life of any other of its processes, until the first one's engine ends:
/// returns the process's exit status. What went wrong is in the log.
int run_rank(const protocol::launch_record&, const runtime::credentials&);

} // namespace troupe::replica
