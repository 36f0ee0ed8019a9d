#include "router/policy/session_affinity.hpp"

#include <algorithm>

namespace troupe::router {

namespace {

double burden(const replica_snapshot& one) {
  return one.choices * one.slowness;
}

} // namespace

std::optional<std::size_t>
session_affinity(std::span<const replica_snapshot> replicas,
                 std::uint64_t session) {
  double all = 1; // the choice itself
  for (auto& one : replicas)
    all += burden(one);
  auto bound =
      std::max(session_slack,
               session_share * all / static_cast<double>(replicas.size()));
  std::optional<std::size_t> first;      // with room
  std::optional<std::size_t> unburdened; // and little to do
  auto better = [&](std::size_t i, std::optional<std::size_t> than) {
    auto weight = [&](std::size_t k) {
      return mixed(mixed(session) ^ replicas[k].name_hash);
    };
    return !than || weight(i) > weight(*than);
  };
  for (std::size_t i = 0; i < replicas.size(); ++i) {
    if (!replicas[i].has_room())
      continue;
    if (better(i, first))
      first = i;
    if (burden(replicas[i]) < bound && better(i, unburdened))
      unburdened = i;
  }
  return unburdened ? unburdened : first;
}

} // namespace troupe::router
