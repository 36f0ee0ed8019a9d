#include "router/replica_gauges.hpp"

#include <set>

namespace troupe::router {

void replica_gauges::follow(const protocol::routing_table& table) {
  std::lock_guard lock{mutex_};
  of_process_.clear();
  std::set<name> listed;
  for (auto& model : table.models)
    for (auto& replica : model.replicas) {
      name key{model.application, model.model, replica.replica};
      auto& counts = counts_[key];
      std::tie(counts.application, counts.model, counts.replica) = key;
      of_process_[replica.where.incarnation] = &counts;
      listed.insert(std::move(key));
    }
  std::erase_if(counts_,
                [&](auto& one) { return listed.count(one.first) == 0; });
}

void replica_gauges::sent(std::uint64_t incarnation) {
  std::lock_guard lock{mutex_};
  if (auto known = of_process_.find(incarnation); known != of_process_.end())
    ++known->second->choices_sent;
}

void replica_gauges::measured(std::uint64_t incarnation,
                              std::uint64_t predicted_tokens,
                              std::uint64_t reported_tokens) {
  std::lock_guard lock{mutex_};
  auto known = of_process_.find(incarnation);
  if (known == of_process_.end())
    return;
  known->second->predicted_tokens += predicted_tokens;
  known->second->reported_tokens += reported_tokens;
}

std::vector<replica_counts> replica_gauges::all() const {
  std::lock_guard lock{mutex_};
  std::vector<replica_counts> out;
  for (auto& [key, counts] : counts_)
    out.push_back(counts);
  return out;
}

} // namespace troupe::router
