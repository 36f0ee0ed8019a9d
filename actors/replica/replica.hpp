#pragma once

#include "actors/protocol/actors.hpp"
#include "actors/protocol/launch_record.hpp"
#include "actors/replica/engine_inbox.hpp"

#include <caf/actor_system.hpp>

#include <cstdint>
#include <functional>
#include <memory>

namespace troupe::replica {

/// Called once, when the process should end, with its exit status.
using ending = std::function<void(int status)>;

/// Exit statuses of a replica process.
enum : int {
  exit_stopped = 0,  ///< drained, as asked
  exit_failed = 1,   ///< the engine could not be loaded
  exit_launch = 2,   ///< no launch record, or no way to obey it
  exit_refused = 3,  ///< the node agent does not know this start
  exit_orphaned = 4, ///< the node agent's process is gone
};

/// The replica's actor and the inbox through which it learns of its engine. The
/// actor registers at the node agent of `launch` (again, if the connection
/// breaks), reports load on change (at most every 100 ms, at least every
/// second) and hands out tokens to routers. Until the inbox has the engine,
/// choices are refused. Before it calls `ending` it has sent all tokens that it
/// knew. The caller keeps the actor alive and stops it before the engine.
/// `version` is the protocol version that it speaks.
struct spawned_replica {
  protocol::replica_actor actor;
  std::shared_ptr<engine_inbox> inbox;
};

spawned_replica
spawn_replica(caf::actor_system&, const protocol::launch_record& launch, ending,
              std::uint32_t version = protocol::protocol_version);

} // namespace troupe::replica
