#include "actors/controller/router_loads.hpp"

#include <tuple>
#include <utility>

namespace troupe::controller {

namespace {

using protocol::others_load;
using protocol::router_report;

struct sums {
  std::map<std::pair<std::string, std::string>, protocol::router_load> models;
  std::map<std::string, protocol::tenant_use> tenants;
};

void add(const router_report& said, sums& to) {
  for (const auto& load : said.models) {
    auto& sum = to.models[{load.application, load.model}];
    sum.waiting += load.waiting;
    sum.sent += load.sent;
  }
  for (const auto& use : said.tenants) {
    auto& sum = to.tenants[use.tenant];
    sum.requests += use.requests;
    sum.tokens += use.tokens;
  }
}

void subtract(const router_report& said, sums& from) {
  for (const auto& load : said.models) {
    auto& sum = from.models[{load.application, load.model}];
    sum.waiting -= load.waiting;
    sum.sent -= load.sent;
  }
  for (const auto& use : said.tenants) {
    auto& sum = from.tenants[use.tenant];
    sum.requests -= use.requests;
    sum.tokens -= use.tokens;
  }
}

others_load to_message(sums from) {
  others_load out;
  for (auto& [key, load] : from.models) {
    std::tie(load.application, load.model) = key;
    if (load.waiting != 0 || load.sent != 0)
      out.models.push_back(std::move(load));
  }
  for (auto& [name, use] : from.tenants) {
    use.tenant = name;
    if (use.requests != 0 || use.tokens != 0)
      out.tenants.push_back(std::move(use));
  }
  return out;
}

} // namespace

void router_loads::hear(const router_report& report) {
  auto [place, is_new] = routers_.try_emplace(report.node);
  auto& said = place->second.said;
  if (!is_new && said.node_epoch == report.node_epoch &&
      said.incarnation == report.incarnation &&
      report.sequence <= said.sequence)
    return;
  said = report;
}

void router_loads::forget(const std::string& node) {
  routers_.erase(node);
}

std::vector<router_loads::view> router_loads::changes() {
  std::vector<view> out;
  sums all;
  for (const auto& [node, router] : routers_)
    add(router.said, all);
  for (auto& [node, router] : routers_) {
    auto rest = all;
    subtract(router.said, rest);
    auto others = to_message(std::move(rest));
    if (others == router.told)
      continue;
    router.told = others;
    out.push_back({node, std::move(others)});
  }
  return out;
}

} // namespace troupe::controller
