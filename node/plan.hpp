#pragma once

#include "actors/controller/deployment.hpp"
#include "actors/controller/placement.hpp"
#include "engine/engine.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace troupe::node {

/// A node as a plan sees it, with nothing placed on it.
struct plan_node {
  controller::node_room room;
  std::uint64_t memory_bytes = 0; ///< that replicas may take together
};

struct model_plan {
  std::string application;
  std::string model;
  std::uint32_t replicas = 1;
  /// Of one replica; nothing, with `unknown`, if the model cannot be read here.
  engine::memory_use memory;
  std::string unknown;
  std::vector<std::string> nodes; ///< of each replica; "" = it has no place
  std::vector<std::string> warnings;
};

/// Says what a replica would take on a node with so much memory.
using measure_model = std::function<result<engine::memory_use>(
    const protocol::replica_spec&, std::uint64_t memory_bytes)>;

/// Where everything would go and what it would take, if it were deployed on
/// these nodes from nothing, by the placement that the controller uses and the
/// sizes that the engine allocates. Pure but for `measure`.
std::vector<model_plan> plan(const controller::deployment&,
                             std::vector<plan_node>, const measure_model&);

/// The engine's own answer, from the model's header.
result<engine::memory_use> measure_with_engine(const protocol::replica_spec&,
                                               std::uint64_t memory_bytes);

/// This machine, or the nodes that GET /api/status of a cluster names.
plan_node this_machine();
result<std::vector<plan_node>> nodes_of_status(const std::string& json);

} // namespace troupe::node
