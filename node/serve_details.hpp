#pragma once

#include "actors/controller/deployment.hpp"
#include "actors/protocol/cluster_status.hpp"
#include "node/node_process.hpp"

#include <string>

namespace troupe::node {

/// Answer of GET /api/serve/applications/: Ray Serve's ServeInstanceDetails, as
/// far as Troupe has what it names. `head` is the node that answers.
std::string serve_details(const controller::deployment&,
                          const protocol::cluster_status&,
                          const node_facts& head);

/// Ray's word for an application whose models have these states.
std::string application_status(const protocol::cluster_status&,
                               const std::string& application);

} // namespace troupe::node
