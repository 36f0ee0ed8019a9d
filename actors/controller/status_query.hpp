#pragma once

#include "actors/controller/deployment.hpp"
#include "actors/protocol/actors.hpp"
#include "actors/protocol/cluster_status.hpp"

#include <caf/fwd.hpp>
#include <cstdint>
#include <functional>
#include <string>

// Questions and orders to the controller. Each calls `done` once, on a thread
// of the actor system and without ever blocking: with the answer, with the
// controller's error, or with errc::unavailable when it is gone or does not
// answer in time. The forms that end in _now are for a thread that may wait.

namespace troupe::controller {

/// How the cluster is. Two seconds.
void query_status(caf::actor_system&, const protocol::controller_actor&,
                  std::function<void(result<protocol::cluster_status>)> done);
result<protocol::cluster_status> status_now(caf::actor_system&,
                                            const protocol::controller_actor&);

/// What is wanted. Two seconds.
void query_config(caf::actor_system&, const protocol::controller_actor&,
                  std::function<void(result<deployment>)> done);
result<deployment> config_now(caf::actor_system&,
                              const protocol::controller_actor&);

/// Makes `wanted` the desired state; the answer is its version, once it is
/// stored. Thirty seconds; without an answer it may have been accepted.
void deploy(caf::actor_system&, const protocol::controller_actor&,
            const deployment& wanted,
            std::function<void(result<std::uint64_t>)> done);
result<std::uint64_t> deploy_now(caf::actor_system&,
                                 const protocol::controller_actor&,
                                 const deployment& wanted);

/// Takes an application (empty: all) out of the desired state; errc::not_found
/// if there is none of that name. Thirty seconds, as above.
void delete_application(caf::actor_system&, const protocol::controller_actor&,
                        const std::string& application,
                        std::function<void(result<std::uint64_t>)> done);

/// Revokes the certificates of a node and drops it; the answer is how it was:
/// "alive", "lost" or "unknown". Errors: a name that no worker can have. Thirty
/// seconds, as above.
void revoke_node(caf::actor_system&, const protocol::head_controller_actor&,
                 const std::string& node,
                 std::function<void(result<std::string>)> done);

/// Sets the number of replicas of a model whose application is scaled from
/// outside. Errors: as controller_machine::scale_from_outside. Thirty seconds.
void scale_model(caf::actor_system&, const protocol::head_controller_actor&,
                 const std::string& application, const std::string& model,
                 std::uint32_t replicas,
                 std::function<void(result<std::uint32_t>)> done);

} // namespace troupe::controller
