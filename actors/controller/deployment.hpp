#pragma once

#include "actors/controller/placement.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "config/serve_config.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace troupe::controller {

/// One model of the desired state.
struct model_deployment {
  /// What every replica starts with; `replica` and `node` are empty here.
  protocol::replica_spec spec;
  std::string route_prefix;
  std::string note;           ///< shown by `troupe status`; empty = none
  std::uint32_t replicas = 1; ///< of a scaled one: to begin with
  replica_demand demand;      ///< what one replica takes
  std::uint64_t created = 0;  ///< seconds since 1970
  std::uint32_t max_queued_requests = 0; ///< per router; 0 = the router's bound
  std::optional<config::autoscaling_config> scaling;
  bool external_scaler = false; ///< `replicas` is set from outside
  protocol::choice_rule choice = {};

  bool operator==(const model_deployment&) const = default;
};

/// Which nodes' routers listen.
enum class proxy_location : std::uint8_t { every_node, head_only, disabled };

/// An application as it was asked for: its entry of `applications`, as JSON
/// with all files that it named put in place. For `troupe config` and the REST
/// API.
struct stored_application {
  std::string name;
  std::string json;

  bool operator==(const stored_application&) const = default;
};

/// The desired state, as the store keeps it.
struct deployment {
  std::vector<model_deployment> models;
  std::vector<stored_application> applications;
  std::string rest_json; ///< the file's other top-level keys, a JSON object
  protocol::router_settings settings;
  proxy_location proxies = proxy_location::every_node;
  /// Per cent of the replicas that are listed, and of the bounds of those that
  /// are scaled; unset = all.
  std::optional<double> target_capacity = {};
  bool capacity_rising = false; ///< its last change was upwards

  bool operator==(const deployment&) const = default;
};

/// Sets `capacity_rising` of what comes after `before`: another target capacity
/// that is less, or the first one of the same models, goes down; that with an
/// application that was not there begins from nothing.
void note_direction(const deployment& before, deployment& wanted);

/// `from` without the application of this name.
deployment without(deployment from, const std::string& application);

codec::bytes encode(const deployment&);
result<deployment> decode_deployment(codec::bytes_view);

/// What a checked configuration asks for. With `cpu_only` models that want a
/// GPU are served by the CPU engine (`--device cpu`). `now` is in seconds since
/// 1970.
deployment to_deployment(const config::serve_config&, bool cpu_only,
                         std::uint64_t now);

} // namespace troupe::controller
