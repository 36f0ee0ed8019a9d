#pragma once

#include "actors/protocol/actors.hpp"
#include "node/node_facts.hpp"
#include "router/service.hpp"

#include <caf/fwd.hpp>
#include <functional>
#include <memory>

namespace troupe::node {

/// The head's admin API beside /metrics:
///   GET    /api/status                       the cluster (cluster_status.hpp)
///   GET    /api/serve/applications/          Ray's ServeInstanceDetails
///   PUT    /api/serve/applications/          a document (JSON); all of it or
///                                            none; 400 with all findings
///   DELETE /api/serve/applications/          all applications
///   DELETE /api/serve/applications/NAME      one; 404 if there is none
///   DELETE /api/nodes/NAME                   revokes a node's certificates and
///                                            drops it: {"node": NAME, "was":
///                                            "alive", "lost" or "unknown"}
///   GET    /api/config                       what was deployed, secrets hidden
/// The last slash may be left out. One change at a time: while one is under way
/// another gets 503.
struct serve_api_options {
  protocol::head_controller_actor controller;
  bool cpu_only = false;
  std::function<node_facts()> facts;
};

/// Adds the routes. The actor system and what `facts` uses live until the
/// service has stopped.
void add_serve_api(router::service&, caf::actor_system&, serve_api_options);

} // namespace troupe::node
