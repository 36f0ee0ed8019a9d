#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/gpu_room.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::controller {

/// Resources by name.
using amounts = std::map<std::string, double>;

enum class placement_strategy : std::uint8_t {
  pack,          ///< one node if it fits, else as few as possible
  strict_pack,   ///< one node
  spread,        ///< different nodes as far as possible
  strict_spread, ///< different nodes
};

/// "PACK", "STRICT_PACK", "SPREAD", "STRICT_SPREAD"; and back, PACK for
/// anything else.
std::string_view to_string(placement_strategy);
placement_strategy strategy_named(std::string_view);

/// What one replica takes: one bundle per worker, the replica's own CPUs merged
/// into bundle 0.
struct replica_demand {
  std::vector<amounts> bundles;
  placement_strategy strategy = placement_strategy::pack;
  std::string engine = "cpu"; ///< that a node's build must have
  std::uint32_t ranks = 1;    ///< of the engine "cuda": a whole GPU for each
  std::uint32_t replicas_per_node_max = 0; ///< 0 = no bound
  std::uint32_t nodes_max = 1;             ///< that one replica may span

  bool operator==(const replica_demand&) const = default;
};

/// A node as placement sees it.
struct node_room {
  std::string node;
  amounts total;
  amounts free;
  std::vector<std::string> engines;
  std::uint32_t replicas_of_model = 0; ///< of the model to place
  std::uint32_t replicas = 0;          ///< of all models
  /// It is new enough for some ranks of a replica, and for ranks on GPUs.
  bool knows_parts = true;
  protocol::gpu_room gpus = {}; ///< what `free` has of "GPU", GPU by GPU
};

/// The GPUs of a node that has these in total, all free.
protocol::gpu_room gpus_of(const amounts& total);

struct placement {
  std::vector<std::string> nodes; ///< one per bundle; empty = it cannot be
  /// Then: which bundle fails on which node, and why, one sentence; at most the
  /// first 8 nodes are named, the others counted.
  std::string reason;
};

/// Where a replica goes: of the nodes that take it, by strategy, then those
/// with the fewest replicas of the model, then the most free of what it asks
/// for, then by name. A part of a GPU is of one GPU, others are whole ones
/// (`protocol::gpu_room`). Pure; linear in the number of nodes.
placement place(const replica_demand&, const std::vector<node_room>&);

/// `count` replicas, one after the other, each with what those before it left.
/// The last one is the first that cannot be, if there is such a one. Linear in
/// `count` + nodes (but for a logarithm) as long as a replica needs one node.
std::vector<placement> place(const replica_demand&, std::vector<node_room>,
                             std::uint32_t count);

/// Takes from a node what `place` has put there.
void occupy(node_room&, const replica_demand&, const placement&);

/// True if this node alone takes a whole replica.
bool takes(const node_room&, const replica_demand&);

/// `placement::reason` for nodes of which none takes a replica: `first` are
/// looked at, `more` others are counted.
std::string why_none_takes(const replica_demand&,
                           const std::vector<node_room>& first,
                           std::size_t more);

/// What there is of "GPU".
double gpus_in(const amounts&);

/// What all bundles of a replica take together.
amounts sum_of(const replica_demand&);

/// What these of them take.
amounts share_of(const replica_demand&, const protocol::rank_share&);

/// The ranks of a replica by node, given that of each bundle: one rank per
/// bundle, the first bundle's node first. Nothing if they are all on one.
std::vector<protocol::rank_share>
shares_of(const std::vector<std::string>& nodes);

/// Adds `what` to `to`, or takes it away again.
void add(amounts& to, const amounts& what);
void subtract(amounts& from, const amounts& what);

} // namespace troupe::controller
