#pragma once

#include "actors/controller/deployment.hpp"
#include "actors/controller/placement.hpp"
#include "actors/protocol/cluster_status.hpp"
#include "actors/protocol/routing_table.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

namespace troupe::controller {

using time_point = std::chrono::steady_clock::time_point;
using std::chrono::milliseconds;

struct controller_limits {
  /// After a start, for the nodes that the store remembers to come back before
  /// their replicas are placed anew.
  milliseconds rejoin_max{5'000};
  /// Between two routing tables, so that many changes at once are one.
  milliseconds table_pause{20};
  /// A model's replicas that may be started beside those wanted, at least 1, in
  /// a rolling change: this share of them.
  double surge = 0.2;
};

/// To the agent of `node`.
struct send_assignment {
  std::string node;
  protocol::node_assignment assignment;
};
/// To every agent: the newest table (`table()`).
struct publish_table {};
/// To every agent.
struct forward_death {
  protocol::death_notice notice;
};
/// For the store: the nodes to wait for after a restart.
struct remember_nodes {
  std::vector<std::string> nodes;
};
using command = std::variant<send_assignment, publish_table, forward_death,
                             remember_nodes>;
using commands = std::vector<command>;

/// What is wanted, where it runs and what routers may use: a pure state machine
/// (events and the time in, commands out; no actors, no disk). Node agents
/// restart processes; the machine decides which replicas there are and where.
///
/// - A node that registers again brings its replicas: those that are wanted, and
///   not placed elsewhere meanwhile, are adopted as they are; the others are not
///   in its next assignment, so the agent ends them.
/// - A lost node's replicas are placed elsewhere at once where they fit; where
///   they do not, they wait for room or for the node to come back.
/// - A changed model is replaced replica by replica: new ones are ready before
///   old ones leave the table and drain. Without room for both, an old one is
///   given up first, one at a time. Changes that no process must be restarted
///   for (`same_process`, replicas, ...) are made in place.
/// - Whatever happens costs at most time linear in replicas + nodes.
class controller_machine {
public:
  /// `epoch` is higher than that of every head before (state_store).
  /// `remembered`: nodes that belonged to the cluster when it was last seen.
  controller_machine(std::uint64_t epoch, controller_limits,
                     const std::vector<std::string>& remembered,
                     time_point now);

  /// The desired state at the start, as stored; places nothing before the
  /// remembered nodes are back or `rejoin_max` is over.
  commands restore(deployment, time_point now);

  /// A node registers. Refused: a name that another living process bears, a
  /// protocol version more than one apart, a node that has obeyed a newer head.
  protocol::node_welcome join(protocol::node_joined, commands&, time_point now);

  /// The connection to the agent of this epoch is gone.
  commands node_lost(const std::string& node, std::uint64_t node_epoch,
                     time_point now);

  /// The desired state is now `wanted`. What did not change stays as it is.
  commands deploy(deployment wanted, time_point now);

  /// News of a replica. Of older epochs, of replicas that are not wanted and
  /// of older processes: dropped.
  commands report(const protocol::replica_news&, time_point now);
  commands death(const protocol::death_notice&, time_point now);
  commands tick(time_point now);

  /// When `tick` has something to do; nothing = not before another event.
  std::optional<time_point> next_deadline() const;

  protocol::routing_table table() const;
  protocol::cluster_status status() const;
  const deployment& wanted() const;
  std::uint64_t epoch() const;

private:
  // by the implementation
};

} // namespace troupe::controller
