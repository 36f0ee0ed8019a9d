#pragma once

#include "actors/node_agent/agent_machine.hpp"
#include "actors/node_agent/process_host.hpp"
#include "actors/protocol/actors.hpp"
#include "actors/runtime/authority.hpp"
#include "actors/runtime/logging.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace troupe::node_agent {

struct node_agent_options {
  protocol::node_joined self; ///< resources.hpp's describe_node
  runtime::credentials tls;   ///< the node's own; its replicas use it too
  /// Run files of replicas lie below it while they live; it is the agent's
  /// alone, and what is there at its start is removed.
  std::filesystem::path run_directory;
  std::string address = "127.0.0.1"; ///< where replicas listen (numeric); the
                                     ///< agent itself listens on loopback
  /// What a replica process is: this program's own hidden verb.
  std::filesystem::path replica_executable = "/proc/self/exe";
  std::vector<std::string> replica_arguments{"replica"};
  runtime::logging_options replica_logging;
  supervision_limits limits;
  head_link_limits head;
  /// Called in the agent's context; must be quick. The head's first word on the
  /// router, and every other one that differs from the last.
  std::function<void(bool wanted)> on_router_wanted;
  /// Whose certificates are void, by the head's word; all there are. The same.
  std::function<void(const std::vector<protocol::revocation>&)> on_revoked;
  /// Every answer to a registration, a refusal too. The same.
  std::function<void(const protocol::node_welcome&)> on_welcome;
  /// Makes the process host; tests put their own here.
  std::function<std::unique_ptr<process_host>(process_host::events)> make_host =
      make_process_host;
};

/// Where the controller is: in this process, or at an endpoint of the head.
using head_place = std::variant<protocol::controller_actor, protocol::endpoint>;

/// Starts the agent of this node: it listens for its replicas, joins the
/// controller, again whenever it was lost, and does as the controller says.
/// When the actor ends, its replica processes are killed. Errors: it cannot
/// listen.
result<protocol::node_agent_actor>
spawn_node_agent(caf::actor_system&, node_agent_options, head_place);

} // namespace troupe::node_agent
