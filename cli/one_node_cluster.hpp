#pragma once

#include "actors/protocol/cluster_status.hpp"
#include "config/serve_config.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>

namespace troupe::cli {

/// Head, node agent and router in this process; replicas in their own.
class one_node_cluster {
public:
  struct options {
    config::serve_config config;
    std::filesystem::path state_dir; ///< exists, mode 0700
    std::uint16_t admin_port = 8265;
    bool cpu_only = false;
  };

  /// Starts everything, stores and deploys what the configuration wants.
  static result<std::unique_ptr<one_node_cluster>> start(options);

  virtual ~one_node_cluster() = default;

  virtual std::uint16_t port() const = 0;
  virtual std::uint16_t admin_port() const = 0;
  virtual result<protocol::cluster_status> status() = 0;

  /// The order of death: the router stops accepting and finishes its answers,
  /// then the replicas drain, then the controller ends. Each has its share of
  /// the time; true if nothing had to be cut off.
  virtual bool stop(std::chrono::milliseconds time_max) = 0;
};

} // namespace troupe::cli
