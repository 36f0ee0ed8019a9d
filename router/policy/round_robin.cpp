#include "router/policy/round_robin.hpp"

namespace troupe::router {

std::optional<std::size_t>
round_robin(std::span<const replica_snapshot> replicas, std::uint64_t last) {
  std::optional<std::size_t> next;
  // How far behind the last one, all around the numbers.
  auto distance = [&](std::size_t i) {
    return replicas[i].incarnation - last - 1;
  };
  for (std::size_t i = 0; i < replicas.size(); ++i)
    if (replicas[i].has_room() && (!next || distance(i) < distance(*next)))
      next = i;
  return next;
}

} // namespace troupe::router
