#pragma once

#include "actors/controller/deployment.hpp"
#include "actors/protocol/cluster_status.hpp"
#include "actors/protocol/routing_table.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace troupe::controller {

/// Have the agent of `spec.node` keep a replica of `spec` running.
struct start_replica {
  protocol::replica_spec spec;

  bool operator==(const start_replica&) const = default;
};

/// Have the agent of `node` drain and end `replica`.
struct stop_replica {
  std::string node;
  std::string replica;

  bool operator==(const stop_replica&) const = default;
};

/// The routing table changed; routers must get it.
struct publish_table {
  bool operator==(const publish_table&) const = default;
};

using command = std::variant<start_replica, stop_replica, publish_table>;

/// What is wanted, where it runs and what routers may use: a pure state machine
/// (events in, commands out; no clock, no actors, no disk). Node agents restart
/// replicas; the machine decides which there are to be and where.
class controller_machine {
public:
  /// A node joined, or joined again: the replicas of its older life are gone.
  std::vector<command> node_joined(protocol::node_joined);

  /// A node is gone; its replicas are placed elsewhere where they fit.
  std::vector<command> node_lost(const std::string& node);

  /// The desired state is now `wanted`. Models that did not change keep their
  /// replicas and the time they were created.
  std::vector<command> deploy(deployment wanted);

  /// News of a replica. Reports of replicas that are not wanted, and older ones
  /// of the same process, change nothing.
  std::vector<command> report(const protocol::replica_report&);

  protocol::routing_table table() const;
  protocol::cluster_status status() const;

  const deployment& wanted() const {
    return wanted_;
  }

private:
  struct replica {
    std::string node;
    protocol::replica_spec spec;
    protocol::replica_report last;
    bool was_ready = false;
  };

  /// A model with its replicas; `unplaced` says why some have no node.
  struct model {
    model_deployment wanted;
    std::map<std::string, replica> replicas; ///< by replica id
    std::string unplaced;
  };

  std::vector<command> place();
  const protocol::node_joined* find_node(model&) const;
  std::string why_not(const model&, const protocol::node_joined&) const;
  double free_cpus(const protocol::node_joined&) const;
  std::int32_t threads_of(const model&, const protocol::node_joined&) const;
  protocol::model_status status_of(const model&) const;

  std::map<std::string, protocol::node_joined> nodes_;
  std::vector<model> models_;
  deployment wanted_;
  std::uint64_t table_version_ = 0;
};

} // namespace troupe::controller
