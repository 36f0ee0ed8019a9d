#pragma once

#include "actors/controller/placement.hpp"
#include "actors/protocol/node_messages.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace troupe::autoscaler {

using std::chrono::milliseconds;

/// A kind of node that the provider can bring.
struct node_type {
  std::string name;
  controller::amounts resources; ///< of a node of it, as it will join
  std::vector<std::string> engines;
  std::uint32_t min_workers = 0; ///< so many are kept
  std::uint32_t max_workers = 0;
};

/// A node that was asked for and is not to end.
struct owned_node {
  std::string node;
  std::string type;
  bool comes = false;               ///< it is not in the cluster (yet)
  std::optional<milliseconds> idle; ///< for so long; nothing = it is not
};

/// What there is and what lacks.
struct node_situation {
  std::vector<node_type> types;
  std::set<std::string> resting; ///< types that are not to be asked for now
  std::uint32_t max_workers = 0; ///< of all types
  /// As many nodes may come at once as this times those that are there, at
  /// least 5.
  double upscaling_speed = 1;
  milliseconds idle_timeout{300'000};
  std::vector<controller::node_room> rooms; ///< nodes that take replicas
  std::vector<owned_node> nodes;
  std::vector<protocol::node_demand> demands;
};

/// What to do about it.
struct node_plan {
  std::map<std::string, std::uint32_t> ask; ///< nodes by type; none is 0
  std::vector<std::string> end;             ///< idle nodes, longest idle first
  std::set<std::string> needed;             ///< nodes that demands are to use

  bool operator==(const node_plan&) const = default;
};

/// Which nodes to ask for and which to end: a pure function.
///
/// - Demands, the largest first, are placed as the controller does it
///   (`controller::place`) on what is there and what comes; so a node that was
///   asked for is not asked for again.
/// - For what remains the type is asked for that takes it and wastes least
///   once it holds all that it can: rather none with a GPU that nobody asked
///   for, then the smallest share of its resources left over, then the smallest
///   type.
/// - Of every type at least `min_workers` are kept, at most `max_workers` asked
///   for; a type that rests is left out.
/// - An owned node that was idle for `idle_timeout`, is not needed and not one
///   of the minimum, is to end. One of too many (the file has changed) need
///   only be idle.
///
/// For each node that it asks for, linear in nodes and demands; at most
/// `asked_at_once_max` of them, the others come with the next plan.
node_plan plan_nodes(const node_situation&);

inline constexpr std::uint32_t asked_at_once_max = 100;
/// Demands that are tried beside one to see what a type would waste.
inline constexpr std::size_t tried_together_max = 64;

/// A demand as placement takes it.
controller::replica_demand replica_demand_of(const protocol::node_demand&);
controller::amounts amounts_of(const std::vector<protocol::resource>&);

} // namespace troupe::autoscaler
