#pragma once

#include "actors/controller/state_store.hpp"
#include "actors/protocol/actors.hpp"

#include <caf/fwd.hpp>
#include <memory>

namespace troupe::controller {

/// Spawns the head's controller: an actor around a controller_machine and the
/// store, which it owns. What the store holds is not started by itself: the
/// command that runs the cluster says what is wanted (`deploy`).
protocol::controller_actor spawn_controller(caf::actor_system&,
                                            std::unique_ptr<state_store>);

} // namespace troupe::controller
