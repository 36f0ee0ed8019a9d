#include "actors/controller/router_loads.hpp"

#include <algorithm>
#include <tuple>

namespace troupe::controller {

namespace {

using protocol::others_load;
using protocol::router_report;

constexpr std::chrono::seconds repeat{1};

void add(const protocol::tenant_use& more,
         std::map<std::string, protocol::tenant_use>& to) {
  auto& sum = to[more.tenant];
  sum.tenant = more.tenant;
  sum.requests += more.requests;
  sum.tokens += more.tokens;
}

std::uint64_t rise(std::uint64_t before, std::uint64_t now) {
  return now > before ? now - before : 0;
}

} // namespace

void router_loads::hear(const router_report& report) {
  auto [place, is_new] = routers_.try_emplace(report.node);
  auto& router = place->second;
  auto& said = router.said;
  auto same_life = !is_new && said.node_epoch == report.node_epoch &&
                   said.incarnation == report.incarnation;
  if (same_life && report.sequence <= said.sequence)
    return;
  if (!same_life) {
    router.had.clear(); // it stays in `had_`
    router.told.reset();
    said = report;
    return;
  }
  for (const auto& use : report.tenants)
    for (const auto& before : said.tenants)
      if (before.tenant == use.tenant) {
        protocol::tenant_use more{use.tenant,
                                  rise(before.requests, use.requests),
                                  rise(before.tokens, use.tokens)};
        add(more, router.had);
        add(more, had_);
      }
  said = report;
}

void router_loads::forget(const std::string& node) {
  routers_.erase(node);
}

std::vector<router_loads::view> router_loads::due(time_point now) {
  loads all;
  for (const auto& [node, router] : routers_)
    for (const auto& load : router.said.models) {
      auto& sum = all[{load.application, load.model}];
      sum.waiting += load.waiting;
      sum.sent += load.sent;
      for (const auto& one : load.tenants)
        sum.by_tenant[one.tenant] += one.waiting;
    }
  std::vector<view> out;
  for (auto& [node, router] : routers_) {
    auto others = others_of(router, all);
    auto nothing = others.models.empty() && others.tenants.empty();
    auto same = router.told ? others == *router.told : nothing;
    if (same && (nothing || now < router.told_at + repeat))
      continue;
    router.told = others;
    router.told_at = now;
    out.push_back({node, std::move(others)});
  }
  return out;
}

others_load router_loads::others_of(const router& of, const loads& all) const {
  auto rest = all;
  for (const auto& load : of.said.models) {
    auto& sum = rest[{load.application, load.model}];
    sum.waiting -= load.waiting;
    sum.sent -= load.sent;
    for (const auto& one : load.tenants)
      sum.by_tenant[one.tenant] -= one.waiting;
  }
  others_load out;
  // As good as random, and never that of another join.
  out.life = of.said.node_epoch ^ (of.said.incarnation * 0x9e3779b97f4a7c15u);
  for (const auto& [key, sum] : rest) {
    if (sum.waiting == 0 && sum.sent == 0)
      continue;
    auto& load = out.models.emplace_back();
    std::tie(load.application, load.model) = key;
    load.waiting = sum.waiting;
    load.sent = sum.sent;
    load.tenants = protocol::most_waiting(sum.by_tenant);
  }
  for (const auto& [name, use] : had_) {
    auto own = of.had.find(name);
    auto less = own == of.had.end() ? protocol::tenant_use{} : own->second;
    protocol::tenant_use others{name, use.requests - less.requests,
                                use.tokens - less.tokens};
    if (others.requests != 0 || others.tokens != 0)
      out.tenants.push_back(std::move(others));
  }
  return out;
}

} // namespace troupe::controller
