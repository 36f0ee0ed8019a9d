#include "router/policy/lowest_cost.hpp"

#include <algorithm>
#include <tuple>

namespace troupe::router {

std::optional<std::size_t>
lowest_cost(std::span<const replica_snapshot> replicas,
            std::span<const cached_prefix> cached, std::uint64_t tokens,
            double match_min, std::uint64_t random) {
  auto rank = [&](std::size_t i) {
    auto match = cached[i].tokens;
    if (static_cast<double>(match) < match_min)
      match = 0;
    auto missing = static_cast<double>(tokens - std::min(tokens, match));
    return std::tuple{replicas[i].load_with(computed_weight * missing),
                      replicas[i].choices, cached[i].blocks};
  };
  std::optional<std::size_t> best;
  auto count = replicas.size();
  for (std::size_t k = 0; k < count; ++k) {
    auto i = (random % count + k) % count;
    if (replicas[i].has_room() && (!best || rank(i) < rank(*best)))
      best = i;
  }
  return best;
}

} // namespace troupe::router
