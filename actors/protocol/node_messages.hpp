#pragma once

#include "actors/protocol/cluster_messages.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

// Nodes that the autoscaler brings: what the controller tells it, what the
// store keeps of it, and what it shows. All within the head's process.

namespace troupe::protocol {

/// What one worker of a replica takes.
struct resource_bundle {
  std::vector<resource> amounts;

  bool operator==(const resource_bundle&) const = default;
};

/// How many replicas of a model a node has.
struct replicas_on {
  std::string node;
  std::uint32_t replicas = 0;

  bool operator==(const replicas_on&) const = default;
};

/// Replicas of a model that have no node, and why.
struct node_demand {
  std::string application;
  std::string model;
  std::uint32_t replicas = 0;              ///< so many; each takes:
  std::vector<resource_bundle> bundles;    ///< one per worker
  std::string strategy;                    ///< "PACK", "STRICT_PACK", ...
  std::string engine;                      ///< "cpu", "cuda"
  std::uint32_t replicas_per_node_max = 0; ///< 0 = no bound
  std::uint32_t ranks = 1;                 ///< of "cuda": a whole GPU for each
  std::uint64_t waits_ms = 0;    ///< since the first of them found no room
  std::string reason;            ///< one sentence
  std::vector<replicas_on> here; ///< those of the model that have a node
  std::uint32_t nodes_max = 1;   ///< that a replica may span; since version 7

  bool operator==(const node_demand&) const = default;
};

/// A node that is in the cluster.
struct seen_node {
  std::string node;
  bool alive = false;
  bool closed = false; ///< nothing is placed there any more
  bool busy = false;   ///< a replica is placed there, or has not ended yet
  std::vector<resource> total;
  std::vector<resource> free; ///< once the replicas that leave are gone
  std::vector<std::string> engines;
  std::uint32_t replicas = 0;
  /// Of each of its GPUs, as `free` is; since version 7 (gpu_room.hpp).
  std::vector<std::uint32_t> gpu_parts_left = {};

  bool operator==(const seen_node&) const = default;
};

/// Controller -> autoscaler: all nodes and all that cannot be placed.
struct nodes_view {
  std::vector<seen_node> nodes;
  std::vector<node_demand> demands;

  bool operator==(const nodes_view&) const = default;
};

/// A node that the provider was, or is about to be, asked for.
struct asked_node {
  std::string node; ///< its name; never given twice
  std::string type; ///< of the cluster file's available_node_types

  bool operator==(const asked_node&) const = default;
};

/// Autoscaler -> controller, for the store; and what the store had.
struct asked_nodes {
  std::uint64_t head_epoch = 0; ///< of the head that tells it
  std::vector<asked_node> nodes;

  bool operator==(const asked_nodes&) const = default;
};

/// How an asked-for node is, for people.
struct asked_node_status {
  std::string node;
  std::string type;
  std::string state; ///< "requested", "joined", "idle", "lost", "draining",
                     ///< "ending"
  std::uint64_t since_ms = 0; ///< it is so

  bool operator==(const asked_node_status&) const = default;
};

/// How a node type is.
struct node_type_status {
  std::string type;
  std::vector<resource> resources; ///< of a node of it
  std::uint32_t min_workers = 0;
  std::uint32_t max_workers = 0;
  std::uint32_t nodes = 0;    ///< asked for, and not yet to end
  std::uint32_t failures = 0; ///< in a row
  std::uint64_t rests_ms = 0; ///< it is not asked for so long
  std::string reason;         ///< of the last failure

  bool operator==(const node_type_status&) const = default;
};

/// Autoscaler -> controller: what `troupe status` shows of it.
struct fleet_status {
  bool brings_nodes = false; ///< there is a cluster file
  std::uint32_t max_workers = 0;
  std::vector<node_type_status> types;
  std::vector<asked_node_status> nodes;

  bool operator==(const fleet_status&) const = default;
};

codec::bytes encode(const nodes_view&);
codec::bytes encode(const asked_nodes&);
codec::bytes encode(const fleet_status&);
result<nodes_view> decode_nodes_view(codec::bytes_view);
result<asked_nodes> decode_asked_nodes(codec::bytes_view);
result<fleet_status> decode_fleet_status(codec::bytes_view);

} // namespace troupe::protocol
