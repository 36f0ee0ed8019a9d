#pragma once

#include "actors/protocol/actors.hpp"

#include <caf/fwd.hpp>

namespace troupe::autoscaler {

/// Spawns the head's autoscaler: an actor around a scaler. It makes itself
/// known to the controller, which tells it what there is to scale, and orders
/// from it. Without something to scale it sleeps. It ends with the controller.
protocol::autoscaler_actor
spawn_autoscaler(caf::actor_system&, const protocol::head_controller_actor&);

} // namespace troupe::autoscaler
