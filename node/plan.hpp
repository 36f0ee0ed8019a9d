#pragma once

#include "actors/controller/deployment.hpp"
#include "actors/controller/placement.hpp"
#include "config/diagnostics.hpp"
#include "engine/engine.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace troupe::node {

/// A node as a plan sees it, with nothing placed on it.
struct plan_node {
  controller::node_room room;
  std::uint64_t memory_bytes = 0;     ///< that replicas may take together
  std::uint64_t gpu_memory_bytes = 0; ///< of one GPU; 0 = not known
};

/// What a node would run of one model, or several nodes together.
struct planned_share {
  std::string node; ///< of several the first, which has the replica
  std::uint32_t replicas = 0;
  engine::memory_use each; ///< of one replica; all 0 if it is not known
  bool on_gpu = false;     ///< then it is of GPUs' memory
  /// A replica's ranks by node; none: all are on `node`.
  std::vector<protocol::rank_share> ranks_on = {};
};

struct model_plan {
  std::string application;
  std::string model;
  std::uint32_t replicas = 1; ///< wanted
  std::vector<planned_share> shares;
  std::vector<std::string> warnings; ///< one sentence each
  std::string refused = {};    ///< why no node will serve it; empty = one may
  config::position where = {}; ///< of the model in its file, if known
};

/// Says what a replica would take on a node with so much memory.
using measure_model = std::function<result<engine::memory_use>(
    const protocol::replica_spec&, std::uint64_t memory_bytes)>;

/// Where everything would go and what it would take, if it were deployed on
/// these nodes from nothing, by the placement that the controller uses and the
/// sizes that the engine allocates. Pure but for `measure`.
std::vector<model_plan> make_plan(const controller::deployment&,
                                  std::vector<plan_node>, const measure_model&);

/// True if a model would be refused wherever it is placed.
bool has_errors(const std::vector<model_plan>&);

/// For people: a paragraph per model, then the nodes.
std::string to_text(const std::vector<model_plan>&,
                    const std::vector<plan_node>&);

/// The engine's own answer, from the model's header. A model that is elsewhere
/// must be in this machine's cache.
result<engine::memory_use> measure_with_engine(const protocol::replica_spec&,
                                               std::uint64_t memory_bytes);

/// This machine alone, or the living nodes that GET /api/status names.
std::vector<plan_node> this_machine();
result<std::vector<plan_node>> nodes_of_status(const std::string& json);

} // namespace troupe::node
