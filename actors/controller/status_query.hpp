#pragma once

#include "actors/protocol/actors.hpp"
#include "actors/protocol/cluster_status.hpp"

#include <caf/fwd.hpp>
#include <functional>

namespace troupe::controller {

/// Asks the controller how the cluster is and calls `done` once, on a thread of
/// the actor system: with an error when the controller is gone or does not
/// answer within two seconds. Never blocks.
void query_status(caf::actor_system&, const protocol::controller_actor&,
                  std::function<void(result<protocol::cluster_status>)> done);

/// The same for a thread that may wait.
result<protocol::cluster_status>
status_now(caf::actor_system&, const protocol::controller_actor&);

} // namespace troupe::controller
