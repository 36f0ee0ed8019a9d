#pragma once

#include "actors/runtime/authority.hpp"
#include "autoscaler/autoscaler.hpp"
#include "config/cluster_config.hpp"
#include "node/node_process.hpp"

#include <cstdint>
#include <filesystem>

namespace troupe::node {

/// Where a head's provider keeps its nodes, in the head's state directory.
std::filesystem::path nodes_directory(const std::filesystem::path& state_dir);

/// How the head with these options, whose join port is `join_port`, brings the
/// nodes of a cluster file. What a node type does not say of its resources is
/// what this machine has; of GPUs it then has none. Starts the provider.
autoscaler::node_bringing bring_nodes(const config::cluster_config&,
                                      const node_options&,
                                      std::uint16_t join_port,
                                      const runtime::authority&);

} // namespace troupe::node
