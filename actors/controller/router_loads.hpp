#pragma once

#include "actors/protocol/load_messages.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace troupe::controller {

/// What each router says that it holds, and what that makes of the others of
/// each: bounds of the whole cluster are kept by routers that know both. Pure.
///
/// What tenants have had counts from where a router was first heard of: its
/// counters, and this, may be older or younger than the other.
class router_loads {
public:
  using time_point = std::chrono::steady_clock::time_point;

  /// Late and doubled reports are dropped.
  void hear(const protocol::router_report&);

  /// The node is gone, and its router with it.
  void forget(const std::string& node);

  struct view {
    std::string node;
    protocol::others_load others;
  };

  /// The routers for which that has changed since they were last told, and once
  /// a second those that have something in it.
  std::vector<view> due(time_point now);

private:
  using uses = std::map<std::string, protocol::tenant_use>; ///< by tenant

  struct model_load {
    std::uint32_t waiting = 0;
    std::uint32_t sent = 0;
    std::map<std::string, std::uint32_t> by_tenant; ///< of those that wait
  };
  using loads = std::map<std::pair<std::string, std::string>,
                         model_load>; ///< by application and model

  struct router {
    protocol::router_report said;
    uses had; ///< through it since it was first heard of
    std::optional<protocol::others_load> told;
    time_point told_at{};
  };

  protocol::others_load others_of(const router&, const loads& all) const;

  std::map<std::string, router> routers_; ///< by node
  uses had_; ///< through all that there ever were; does not fall
};

} // namespace troupe::controller
