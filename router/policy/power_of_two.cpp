#include "router/policy/power_of_two.hpp"

#include <vector>

namespace troupe::router {

namespace {

bool less_loaded(const replica_snapshot& left, const replica_snapshot& right,
                 double more) {
  auto one = left.load_with(more);
  auto other = right.load_with(more);
  return one < other || (one == other && left.choices < right.choices);
}

} // namespace

std::optional<std::size_t>
power_of_two(std::span<const replica_snapshot> replicas, std::uint64_t random,
             std::uint64_t more) {
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < replicas.size(); ++i)
    if (replicas[i].has_room())
      open.push_back(i);
  if (open.empty())
    return std::nullopt;
  auto count = open.size();
  auto first = static_cast<std::size_t>((random & 0xffffffff) % count);
  if (count == 1)
    return open[first];
  auto step = 1 + static_cast<std::size_t>((random >> 32) % (count - 1));
  auto second = (first + step) % count;
  return less_loaded(replicas[open[second]], replicas[open[first]],
                     static_cast<double>(more))
             ? open[second]
             : open[first];
}

} // namespace troupe::router
