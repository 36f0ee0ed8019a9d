#include "router/policy/fair_shares.hpp"

#include <algorithm>

namespace troupe::router {

void fair_shares::enter(const std::string& tenant, double weight) {
  auto known = inside_.find(tenant);
  if (known == inside_.end()) {
    auto begin = last_;
    for (auto i = inside_.begin(); i != inside_.end(); ++i)
      begin =
          i == inside_.begin() ? i->second.had : std::min(begin, i->second.had);
    known = inside_.emplace(tenant, account{0, weight, begin}).first;
  }
  known->second.weight = weight;
  ++known->second.choices;
}

void fair_shares::leave(const std::string& tenant) {
  auto known = inside_.find(tenant);
  if (known == inside_.end() || --known->second.choices != 0)
    return;
  last_ = std::max(last_, known->second.had);
  inside_.erase(known);
}

void fair_shares::charge(const std::string& tenant, double work) {
  auto known = inside_.find(tenant);
  if (known == inside_.end())
    return;
  known->second.had += work / known->second.weight;
}

double fair_shares::had(const std::string& tenant, double floor) const {
  auto known = inside_.find(tenant);
  return std::max(known == inside_.end() ? last_ : known->second.had, floor);
}

double fair_shares::floor() const {
  double most = 0;
  for (const auto& [name, one] : inside_)
    most = std::max(most, one.had);
  return most - credit_max;
}

double fair_shares::share(const std::string& tenant, double weight) const {
  double all = weight;
  for (const auto& [name, one] : inside_)
    if (name != tenant)
      all += one.weight;
  return weight / all;
}

} // namespace troupe::router
