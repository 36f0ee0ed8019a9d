#pragma once

#include "actors/protocol/cluster_layout.hpp"
#include "actors/protocol/node_messages.hpp"

// Field numbers of what is said of nodes that come and go.

namespace troupe::protocol {

template <>
struct layout<resource_bundle> {
  using r = resource_bundle;
  static constexpr std::string_view name = "resource_bundle";
  static constexpr auto fields = std::tuple{number(1, &r::amounts)};
};

template <>
struct layout<replicas_on> {
  using r = replicas_on;
  static constexpr std::string_view name = "replicas_on";
  static constexpr auto fields = std::tuple{
      number(1, &r::node),
      number(2, &r::replicas),
  };
};

template <>
struct layout<node_demand> {
  using r = node_demand;
  static constexpr std::string_view name = "node_demand";
  static constexpr auto fields = std::tuple{
      number(1, &r::application),
      number(2, &r::model),
      number(3, &r::replicas),
      number(4, &r::bundles),
      number(5, &r::strategy),
      number(6, &r::engine),
      number(7, &r::replicas_per_node_max),
      number(8, &r::waits_ms),
      number(9, &r::reason),
      number(10, &r::here),
      droppable_since(7, 11, &r::nodes_max),
      droppable_since(7, 12, &r::ranks),
  };
};

template <>
struct layout<seen_node> {
  using r = seen_node;
  static constexpr std::string_view name = "seen_node";
  static constexpr auto fields = std::tuple{
      number(1, &r::node),
      number(2, &r::alive),
      number(3, &r::closed),
      number(4, &r::busy),
      number(5, &r::total),
      number(6, &r::free),
      number(7, &r::engines),
      number(8, &r::replicas),
      droppable_since(7, 9, &r::gpu_parts_left),
  };
};

template <>
struct layout<nodes_view> {
  using r = nodes_view;
  static constexpr std::string_view name = "nodes_view";
  static constexpr auto fields = std::tuple{
      number(1, &r::nodes),
      number(2, &r::demands),
  };
};

template <>
struct layout<asked_node> {
  using r = asked_node;
  static constexpr std::string_view name = "asked_node";
  static constexpr auto fields = std::tuple{
      number(1, &r::node),
      number(2, &r::type),
  };
};

template <>
struct layout<asked_nodes> {
  using r = asked_nodes;
  static constexpr std::string_view name = "asked_nodes";
  static constexpr auto fields = std::tuple{
      number(1, &r::head_epoch),
      number(2, &r::nodes),
  };
};

template <>
struct layout<asked_node_status> {
  using r = asked_node_status;
  static constexpr std::string_view name = "asked_node_status";
  static constexpr auto fields = std::tuple{
      number(1, &r::node),
      number(2, &r::type),
      number(3, &r::state),
      number(4, &r::since_ms),
  };
};

template <>
struct layout<node_type_status> {
  using r = node_type_status;
  static constexpr std::string_view name = "node_type_status";
  static constexpr auto fields = std::tuple{
      number(1, &r::type),        number(2, &r::resources),
      number(3, &r::min_workers), number(4, &r::max_workers),
      number(5, &r::nodes),       number(6, &r::failures),
      number(7, &r::rests_ms),    number(8, &r::reason),
  };
};

template <>
struct layout<fleet_status> {
  using r = fleet_status;
  static constexpr std::string_view name = "fleet_status";
  static constexpr auto fields = std::tuple{
      number(1, &r::brings_nodes),
      number(2, &r::max_workers),
      number(3, &r::types),
      number(4, &r::nodes),
  };
};

} // namespace troupe::protocol
