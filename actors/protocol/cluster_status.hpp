#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/node_messages.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::protocol {

/// A model as the controller sees it: what is wanted, what there is, and why
/// they differ.
struct model_status {
  std::string application;
  std::string route_prefix;
  std::string model;
  std::string status; ///< "RUNNING", "DEPLOYING", "PENDING", "UNHEALTHY",
                      ///< "DEPLOY_FAILED"
  std::string reason; ///< one sentence; empty when all is as wanted
  std::string note;   ///< what the user should know of its configuration
  std::uint32_t replicas_wanted = 0;
  std::uint32_t replicas_ready = 0;
  std::uint64_t created = 0; ///< seconds since 1970
  std::vector<replica_report> replicas; ///< the newest report of each
  bool scaled = false;                  ///< by the autoscaler; then:
  std::uint32_t replicas_min = 0;
  std::uint32_t replicas_max = 0;
  std::string scaling;      ///< the last decision, one sentence
  std::string last_scaling; ///< the last one that changed something, or nothing
  std::string held_back;    ///< why it is not what the load asks for, or nothing

  bool operator==(const model_status&) const = default;
};

/// A node as the controller sees it.
struct node_status {
  node_joined node;           ///< without its replicas
  bool alive = false;         ///< false: lost, expected back
  std::vector<resource> used; ///< by what is placed there

  bool operator==(const node_status&) const = default;
};

/// The whole cluster, for `troupe status`, /api/status and /metrics.
struct cluster_status {
  std::uint64_t table_version = 0;
  std::vector<node_status> nodes;
  std::vector<model_status> models;
  std::vector<std::string> revoked; ///< names whose older certificates are void
  std::vector<node_demand> demands; ///< what has no node
  fleet_status fleet;               ///< nodes that are brought

  bool operator==(const cluster_status&) const = default;
};

codec::bytes encode(const cluster_status&);
result<cluster_status> decode_cluster_status(codec::bytes_view);

/// The same as a JSON document, for people's tools: names as above, phases in
/// words.
std::string to_json(const cluster_status&);

/// "starting", "loading", "ready", "draining", "stopped", "failed".
std::string_view to_string(replica_phase);

} // namespace troupe::protocol
