#pragma once

#include "router/edge.hpp"
#include "router/http/server.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace troupe::router {

/// The admin side, for the operator: exact paths. Refuses what a browser sends
/// for another page (Origin) or under a name that is not local (Host); what
/// changes something comes from no page at all.
class admin {
public:
  /// Serves GET /-/healthz, /-/routes and /metrics. `over` outlives it.
  admin(const edge& over, load_source, std::shared_ptr<router_gauges>);

  /// Any time; replaces what was there. A path that ends with "/*" stands for
  /// every path below it that is not there itself.
  void add(std::string method, std::string path, http::handler);

  void handle(http::request, std::shared_ptr<http::reply>);

private:
  using route_map = std::map<std::string, std::map<std::string, http::handler>>;

  route_map::const_iterator find(const std::string& path) const;
  void health(http::reply&) const;
  void routes(http::reply&) const;
  void metrics_text(const std::shared_ptr<http::reply>&) const;

  const edge& edge_;
  load_source loads_;
  std::shared_ptr<router_gauges> gauges_;
  std::mutex mutex_;
  route_map routes_; // by path, then method
};

} // namespace troupe::router
