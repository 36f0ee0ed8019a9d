#pragma once

#include "actors/controller/controller_machine.hpp"
#include "actors/controller/state_store.hpp"
#include "actors/protocol/actors.hpp"

#include <caf/fwd.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace troupe::controller {

/// Who may be a node, as the head's authority has it.
struct gatekeeper {
  std::vector<protocol::revocation> revoked; ///< so far
  /// Revokes the certificates of a node (on disk, in force on this head) and
  /// gives all that were. Called in the controller's context.
  std::function<result<std::vector<protocol::revocation>>(
      const std::string& node)>
      revoke;
};

/// Spawns the head's controller: an actor around a controller_machine and the
/// store, which it owns; it raises the head's epoch. With `restore` it goes on
/// where the head before stopped: what the store holds is wanted, and the nodes
/// it remembers are waited for. Without, it starts with nothing, whatever is
/// stored. Without a gatekeeper nothing can be revoked. Errors: a store that
/// cannot be read or written.
result<protocol::head_controller_actor>
spawn_controller(caf::actor_system&, std::unique_ptr<state_store>, bool restore,
                 gatekeeper = {}, controller_limits = {});

} // namespace troupe::controller
