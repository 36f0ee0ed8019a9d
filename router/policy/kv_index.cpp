#include "router/policy/kv_index.hpp"

#include <algorithm>

namespace troupe::router {

kv_index::kv_index(limits from, std::uint64_t seed)
    : limits_(from), index_(from.bytes_max, seed) {
  // nop
}

void kv_index::follow(std::uint64_t incarnation) {
  sources_.try_emplace(incarnation);
}

void kv_index::forget(std::uint64_t incarnation) {
  sources_.erase(incarnation);
  index_.remove_all(incarnation);
}

void kv_index::take(std::uint64_t incarnation,
                    const protocol::kv_events& events) {
  auto known = sources_.find(incarnation);
  if (known == sources_.end())
    return;
  auto& from = known->second;
  if (events.all) {
    index_.remove_all(incarnation);
    from = {.in_step = true, .asked = from.asked};
  } else if (!from.in_step || events.sequence != from.sequence + 1) {
    from.in_step = false; // what it has is a guess until it tells all
    return;
  }
  from.sequence = events.sequence;
  tell(incarnation, events);
}

// A block for which there is no room is not known to be anywhere: predictions
// get worse, nothing else.
void kv_index::tell(std::uint64_t incarnation,
                    const protocol::kv_events& events) {
  if (events.block_size != 0)
    block_size_ = events.block_size;
  for (auto name : events.stored)
    if (name != codec::root_name)
      index_.add(name, incarnation);
  for (auto name : events.dropped)
    if (name != codec::root_name)
      index_.remove(name, incarnation);
}

void kv_index::compare(std::uint64_t incarnation, std::uint64_t predicted,
                       std::uint64_t reported) {
  auto known = sources_.find(incarnation);
  if (known == sources_.end())
    return;
  auto& from = known->second;
  auto larger = std::max(predicted, reported);
  from.judged += static_cast<double>(larger);
  from.off += static_cast<double>(larger - std::min(predicted, reported));
  if (from.judged < limits_.judged_tokens)
    return;
  from.drifts = from.off > limits_.error_max * from.judged;
  // What is longer ago counts less.
  from.judged /= 2;
  from.off /= 2;
}

bool kv_index::should_ask(std::uint64_t incarnation, time_point now) {
  auto known = sources_.find(incarnation);
  if (known == sources_.end())
    return false;
  auto& from = known->second;
  if (from.in_step && !from.drifts)
    return false;
  auto pause = from.in_step ? limits_.ask_pause : limits_.answer_time;
  if (from.asked && now < *from.asked + pause)
    return false;
  from.asked = now;
  return true;
}

std::vector<std::uint64_t> kv_index::followed() const {
  std::vector<std::uint64_t> out;
  for (auto& [incarnation, from] : sources_)
    out.push_back(incarnation);
  return out;
}

std::optional<predicted_replica>
kv_index::choose(const choice_wish& wish,
                 std::span<const replica_snapshot> replicas,
                 std::uint64_t random) const {
  auto cached = cached_in(index_, wish, replicas);
  auto place =
      lowest_cost(replicas, cached, wish.tokens,
                  limits_.match_rate_min * wish.prompt_tokens(), random);
  if (!place)
    return std::nullopt;
  return predicted_replica{*place, cached[*place].tokens};
}

} // namespace troupe::router
