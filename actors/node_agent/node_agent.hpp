#pragma once

#include "actors/node_agent/process_host.hpp"
#include "actors/protocol/actors.hpp"
#include "actors/runtime/authority.hpp"
#include "actors/runtime/logging.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace troupe::node_agent {

struct node_agent_options {
  std::string node = "head";
  std::string address = "127.0.0.1"; ///< where agent and replicas listen
  /// Credentials of replicas lie below it while they live. The agent's alone:
  /// what is there at its start is removed.
  std::filesystem::path run_directory;
  runtime::authority issuer;
  /// What a replica process is: this program's own hidden verb.
  std::filesystem::path replica_executable = "/proc/self/exe";
  std::vector<std::string> replica_arguments{"replica"};
  runtime::logging_options replica_logging;
  supervision_limits limits;
  /// Makes the process host; tests put their own here.
  std::function<std::unique_ptr<process_host>(process_host::events)> make_host =
      make_process_host;
};

/// Starts the agent of this node: it publishes itself at `address` for its
/// replicas, joins the controller and then does as the controller says. When
/// the actor ends, its replica processes are killed. Errors: it cannot listen.
result<protocol::node_agent_actor> spawn_node_agent(caf::actor_system&,
                                                    node_agent_options,
                                                    protocol::controller_actor);

/// The node's resources; `gpus` is 0 on a node of CPUs.
protocol::node_joined describe_node(const std::string& name,
                                    std::uint64_t incarnation);

} // namespace troupe::node_agent
