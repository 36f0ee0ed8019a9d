#pragma once

#include "actors/protocol/load_messages.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace troupe::controller {

/// What each router says that it holds, and what that makes of the others of
/// each: bounds of the whole cluster are kept by routers that know both. Pure.
class router_loads {
public:
  /// Late and doubled reports are dropped.
  void hear(const protocol::router_report&);

  /// The node is gone, and its router with it.
  void forget(const std::string& node);

  struct view {
    std::string node;
    protocol::others_load others;
  };

  /// The routers for which that has changed since they were last told.
  std::vector<view> changes();

private:
  struct router {
    protocol::router_report said;
    protocol::others_load told;
  };

  std::map<std::string, router> routers_; ///< by node
};

} // namespace troupe::controller
