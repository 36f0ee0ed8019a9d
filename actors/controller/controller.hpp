#pragma once

#include "actors/controller/controller_machine.hpp"
#include "actors/controller/state_store.hpp"
#include "actors/protocol/actors.hpp"

#include <caf/fwd.hpp>
#include <memory>

namespace troupe::controller {

/// Spawns the head's controller: an actor around a controller_machine and the
/// store, which it owns; it raises the head's epoch. With `restore` it goes on
/// where the head before stopped: what the store holds is wanted, and the nodes
/// it remembers are waited for. Without, it starts with nothing, whatever is
/// stored. Errors: a store that cannot be read or written.
result<protocol::controller_actor>
spawn_controller(caf::actor_system&, std::unique_ptr<state_store>, bool restore,
                 controller_limits = {});

} // namespace troupe::controller
