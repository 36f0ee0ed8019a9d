#include "router/policy/prefix_affinity.hpp"

#include "router/policy/power_of_two.hpp"

#include <algorithm>

namespace troupe::router {

namespace {

double spread(std::span<const replica_snapshot> replicas) {
  auto [low, high] = std::minmax_element(
      replicas.begin(), replicas.end(),
      [](auto& one, auto& other) { return one.choices < other.choices; });
  return low == replicas.end() ? 0 : high->choices - low->choices;
}

} // namespace

std::vector<cached_prefix> cached_in(const block_index& index,
                                     const choice_wish& wish,
                                     std::span<const replica_snapshot> among) {
  std::vector<std::uint64_t> holders;
  for (auto& one : among)
    holders.push_back(one.incarnation);
  std::vector<std::uint32_t> matches(holders.size());
  index.match(wish.blocks, holders, matches);
  std::vector<cached_prefix> out;
  for (std::size_t i = 0; i < holders.size(); ++i)
    out.push_back({std::uint64_t{matches[i]} * wish.block_size,
                   index.size_of(holders[i])});
  return out;
}

prefix_affinity::prefix_affinity(options from, std::size_t bytes_max,
                                 std::uint64_t seed)
    : options_(from), sent_(bytes_max, seed) {
  // nop
}

std::optional<predicted_replica>
prefix_affinity::choose(const choice_wish& wish,
                        std::span<const replica_snapshot> replicas,
                        std::uint64_t random) const {
  auto cached = cached_in(sent_, wish, replicas);
  auto place =
      spread(replicas) > options_.imbalance_max
          ? power_of_two(replicas, random, wish.tokens)
          : lowest_cost(replicas, cached, wish.tokens,
                        options_.match_rate_min * wish.prompt_tokens(), random);
  if (!place)
    return std::nullopt;
  return predicted_replica{*place, cached[*place].tokens};
}

void prefix_affinity::sent(const choice_wish& wish, std::uint64_t incarnation) {
  for (auto name : wish.blocks)
    if (!sent_.add(name, incarnation)) {
      sent_.forget_one();
      sent_.add(name, incarnation);
    }
}

} // namespace troupe::router
