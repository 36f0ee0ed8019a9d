#pragma once

#include "actors/controller/deployment.hpp"
#include "actors/node_agent/resources.hpp"
#include "actors/protocol/cluster_status.hpp"
#include "actors/runtime/logging.hpp"
#include "config/cluster_config.hpp"
#include "node/node_facts.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <variant>

/// What a process of the cluster consists of, and what it offers beside actors
/// and the OpenAI API: Ray Serve's REST API, plans.
namespace troupe::node {

/// An address (numeric) and a port (0 = any) to listen on.
struct listen_place {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;
};

/// Where workers come in. Without it a head is alone: nothing but its HTTP side
/// and loopback listens.
struct entrance {
  std::uint16_t join_port = 6380;
  std::uint16_t cluster_port = 6381; ///< of the controller; 0 = any
};

struct head_role {
  std::optional<entrance> open;
  /// What to run instead of what the state directory's store holds.
  std::optional<controller::deployment> wanted;
  /// With `open`: nodes come and go by this file (--autoscaling-config).
  std::optional<config::cluster_config> cluster;
};

struct worker_role {
  std::string host;          ///< of the head
  std::uint16_t port = 6380; ///< its join port
  std::string token;         ///< empty: with the membership of an earlier start
};

using node_role = std::variant<head_role, worker_role>;

struct node_options {
  std::string name = "head";
  std::string address = "127.0.0.1"; ///< where other nodes reach this one
  listen_place http{"127.0.0.1", 8000};
  listen_place admin{"127.0.0.1", 8265};
  node_agent::given_resources given;
  std::filesystem::path state_dir; ///< exists, mode 0700, this process's alone
  bool cpu_only = false;           ///< of a head: models that want a GPU run
                                   ///< on the CPU
  std::filesystem::path replica_executable = "/proc/self/exe";
  runtime::logging_options replica_logging;
};

/// A node: agent and router; on the head the controller, the admin API and the
/// entrance too. Replicas are processes of their own, its children.
///
/// Start: certificate, actors, store, controller, router (its admin listener),
/// agent, entrance; the public listener as soon as the head wants one here.
/// Death: no new members, no new requests, answers under way finish, nodes that
/// a provider brought end, replicas drain, the agent leaves, the controller
/// ends.
class node_process {
public:
  /// Errors: a port that is taken, a state directory that is damaged or in use,
  /// a head that refuses. Blocks until the node is in its cluster and listens,
  /// at most some seconds.
  static result<std::unique_ptr<node_process>> start(node_options, node_role);

  /// As `stop` with no time.
  virtual ~node_process() = default;

  virtual node_facts facts() const = 0;

  /// Of the whole cluster; an error on a worker.
  virtual result<protocol::cluster_status> status() = 0;

  /// Nothing, until the head says that this worker's certificate is void. Then
  /// it can do no more than end.
  virtual std::optional<error> shut_out() const = 0;

  /// Longest grace that answers under way are to have, by what is deployed.
  virtual std::chrono::milliseconds patience() = 0;

  /// Ends everything in order; true if nothing had to be cut off.
  virtual bool stop(std::chrono::milliseconds time_max) = 0;
};

} // namespace troupe::node
