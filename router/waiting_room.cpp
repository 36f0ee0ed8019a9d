#include "router/waiting_room.hpp"

#include <algorithm>
#include <tuple>

namespace troupe::router {

void waiting_room::add(const lane_key& where, choice_key key,
                       const standing& who) {
  auto& tenants = lanes_[where][who.priority];
  if (!tenants[who.tenant].insert({who.since, key}).second)
    return;
  auto& total = totals_[who.priority][who.tenant];
  ++total.choices;
  total.work += who.work;
  ++size_;
}

void waiting_room::remove(const lane_key& where, choice_key key,
                          const standing& who) {
  auto lane = lanes_.find(where);
  if (lane == lanes_.end())
    return;
  auto line = lane->second.find(who.priority);
  if (line == lane->second.end())
    return;
  auto own = line->second.find(who.tenant);
  if (own == line->second.end() || own->second.erase({who.since, key}) == 0)
    return;
  if (own->second.empty())
    line->second.erase(own);
  if (line->second.empty())
    lane->second.erase(line);
  if (lane->second.empty())
    lanes_.erase(lane);
  auto& of_priority = totals_[who.priority];
  auto& total = of_priority[who.tenant];
  total.work -= who.work;
  if (--total.choices == 0)
    of_priority.erase(who.tenant);
  if (of_priority.empty())
    totals_.erase(who.priority);
  --size_;
}

std::size_t waiting_room::size_of(const std::string& tenant) const {
  std::size_t out = 0;
  for (const auto& [priority, tenants] : totals_)
    if (auto own = tenants.find(tenant); own != tenants.end())
      out += own->second.choices;
  return out;
}

std::size_t waiting_room::size_of_small(std::size_t each) const {
  std::size_t out = 0;
  for (const auto& [tenant, size] : sizes())
    if (!tenant.empty() && size <= each)
      out += size;
  return out;
}

std::map<std::string, std::uint32_t> waiting_room::sizes() const {
  std::map<std::string, std::uint32_t> out;
  for (const auto& [priority, tenants] : totals_)
    for (const auto& [tenant, total] : tenants)
      out[tenant] += static_cast<std::uint32_t>(total.choices);
  return out;
}

double waiting_room::ahead_of(const standing& who, double share) const {
  double all = 0;
  double own = 0;
  for (const auto& [priority, tenants] : totals_) {
    if (priority > who.priority)
      break;
    for (const auto& [tenant, total] : tenants) {
      all += total.work;
      // Those who are more urgent go first, whoever they are.
      if (priority < who.priority || tenant == who.tenant)
        own += total.work;
    }
  }
  return std::min(all, own / share);
}

std::vector<waiting_room::candidate>
waiting_room::next(const fair_shares& shares,
                   const std::set<std::string>& without) const {
  struct head {
    std::int32_t priority;
    double had;
    place first;
    const lane_key* lane;
  };
  std::vector<head> heads;
  auto floor = shares.floor();
  for (const auto& [key, lane] : lanes_) {
    std::optional<head> best;
    for (const auto& [priority, tenants] : lane) {
      for (const auto& [tenant, places] : tenants) {
        if (without.contains(tenant))
          continue;
        head one{priority, shares.had(tenant, floor), *places.begin(), &key};
        if (!best ||
            std::tie(one.had, one.first) < std::tie(best->had, best->first))
          best = one;
      }
      if (best)
        break;
    }
    if (best)
      heads.push_back(*best);
  }
  std::sort(heads.begin(), heads.end(), [](const head& a, const head& b) {
    return std::tie(a.priority, a.had, a.first) <
           std::tie(b.priority, b.had, b.first);
  });
  std::vector<candidate> out;
  for (const auto& one : heads)
    out.push_back({*one.lane, one.first.second});
  return out;
}

std::optional<std::chrono::steady_clock::time_point>
waiting_room::oldest() const {
  std::optional<std::chrono::steady_clock::time_point> out;
  for (const auto& [key, lane] : lanes_)
    if (!key.arithmetic_class)
      for (const auto& [priority, tenants] : lane)
        for (const auto& [tenant, places] : tenants)
          if (!out || places.begin()->first < *out)
            out = places.begin()->first;
  return out;
}

std::optional<choice_key> waiting_room::any() const {
  if (lanes_.empty())
    return std::nullopt;
  return lanes_.begin()->second.begin()->second.begin()->second.begin()->second;
}

} // namespace troupe::router
