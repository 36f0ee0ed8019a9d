#include "router/policy/replica_chooser.hpp"

#include "router/policy/power_of_two.hpp"
#include "router/policy/round_robin.hpp"
#include "router/policy/session_affinity.hpp"

namespace troupe::router {

namespace {

using protocol::choice_policy;

// Of the names that `prefix` gives to what it sent: as fine as the engine's own
// blocks are by default.
constexpr std::uint32_t prefix_block_size = 16;
constexpr std::size_t prefix_bytes_max = std::size_t{16} << 20;

std::optional<predicted_replica> without_guess(std::optional<std::size_t> at) {
  return at ? std::optional{predicted_replica{*at, 0}} : std::nullopt;
}

} // namespace

replica_chooser::memory
replica_chooser::memory_for(const protocol::choice_rule& rule,
                            std::uint64_t seed) {
  prefix_affinity::options matching;
  matching.match_rate_min = rule.match_rate_min;
  if (rule.imbalance_max >= 0)
    matching.imbalance_max = rule.imbalance_max;
  kv_index::limits told;
  told.match_rate_min = rule.match_rate_min;
  switch (rule.policy) {
  case choice_policy::round_robin:
    return last_one{};
  case choice_policy::prefix:
    return prefix_affinity{matching, prefix_bytes_max, seed};
  case choice_policy::kv_aware:
    return kv_index{told, seed};
  case choice_policy::power_of_two:
  case choice_policy::session:
    break;
  }
  return nothing{};
}

replica_chooser::replica_chooser(const protocol::choice_rule& rule,
                                 std::uint64_t seed)
    : rule_(rule), memory_(memory_for(rule, seed)) {
  // nop
}

std::uint32_t replica_chooser::block_size() const {
  if (auto* told = std::get_if<kv_index>(&memory_))
    return told->block_size();
  return std::holds_alternative<prefix_affinity>(memory_) ? prefix_block_size
                                                          : 0;
}

std::optional<predicted_replica>
replica_chooser::choose(const choice_wish& wish,
                        std::span<const replica_snapshot> replicas,
                        std::uint64_t random) const {
  if (auto* told = std::get_if<kv_index>(&memory_))
    return told->choose(wish, replicas, random);
  if (auto* sent = std::get_if<prefix_affinity>(&memory_))
    return sent->choose(wish, replicas, random);
  if (auto* last = std::get_if<last_one>(&memory_))
    return without_guess(round_robin(replicas, last->incarnation));
  if (rule_.policy == choice_policy::session && wish.session != 0)
    return without_guess(session_affinity(replicas, wish.session));
  return without_guess(power_of_two(replicas, random, wish.tokens));
}

void replica_chooser::sent(const choice_wish& wish, std::uint64_t incarnation) {
  if (auto* last = std::get_if<last_one>(&memory_))
    last->incarnation = incarnation;
  if (auto* sent = std::get_if<prefix_affinity>(&memory_))
    sent->sent(wish, incarnation);
}

bool replica_chooser::predicts() const {
  return std::holds_alternative<prefix_affinity>(memory_) ||
         std::holds_alternative<kv_index>(memory_);
}

void replica_chooser::forget(std::uint64_t incarnation) {
  if (auto* told = std::get_if<kv_index>(&memory_))
    told->forget(incarnation);
  if (auto* sent = std::get_if<prefix_affinity>(&memory_))
    sent->forget(incarnation);
}

} // namespace troupe::router
