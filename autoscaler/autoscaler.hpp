#pragma once

#include "actors/protocol/actors.hpp"
#include "autoscaler/node_fleet.hpp"
#include "node/provider/node_provider.hpp"

#include <caf/fwd.hpp>

#include <memory>
#include <string>
#include <vector>

namespace troupe::autoscaler {

/// Who brings nodes, and how.
struct node_bringing {
  fleet::options options;
  std::shared_ptr<node::node_provider> provider; ///< null: nobody
  std::vector<node::living_node> living;         ///< what it found at its start
};

/// Spawns the head's autoscaler: an actor around a scaler and, with a provider,
/// a machine for nodes. It makes itself known to the controller, which tells it
/// what there is to scale and what has no place, and orders from it. Without
/// something to scale or to bring it sleeps. It ends with the controller.
protocol::autoscaler_actor
spawn_autoscaler(caf::actor_system&, const protocol::head_controller_actor&,
                 node_bringing = {});

} // namespace troupe::autoscaler
