#include "router/policy/power_of_two.hpp"

#include <vector>

namespace troupe::router {

namespace {

bool has_room(const replica_snapshot& replica) {
  return replica.choices_max == 0 || replica.choices < replica.choices_max;
}

bool less_loaded(const replica_snapshot& left, const replica_snapshot& right) {
  if (left.tokens != right.tokens)
    return left.tokens < right.tokens;
  return left.choices < right.choices;
}

} // namespace

std::optional<std::size_t>
power_of_two(std::span<const replica_snapshot> replicas, std::uint64_t random) {
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < replicas.size(); ++i)
    if (has_room(replicas[i]))
      open.push_back(i);
  if (open.empty())
    return std::nullopt;
  auto count = open.size();
  auto first = static_cast<std::size_t>((random & 0xffffffff) % count);
  if (count == 1)
    return open[first];
  auto step = 1 + static_cast<std::size_t>((random >> 32) % (count - 1));
  auto second = (first + step) % count;
  return less_loaded(replicas[open[second]], replicas[open[first]])
             ? open[second]
             : open[first];
}

} // namespace troupe::router
