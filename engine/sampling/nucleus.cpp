#include "engine/sampling/nucleus.hpp"

#include "engine/sampling/draw_math.hpp"

#include <algorithm>

namespace troupe::sampling {

namespace {

constexpr std::size_t few = 32;

std::uint64_t sum_of(const std::vector<ranked_logit>& entries,
                     const softmax_weights& weights) {
  std::uint64_t sum = 0;
  for (const ranked_logit& entry : entries)
    sum += fixed_weight(weights[entry.id]);
  return sum;
}

std::uint64_t sum_of_all(const softmax_weights& weights) {
  std::uint64_t sum = 0;
  for (double weight : weights.all())
    sum += fixed_weight(weight);
  return sum;
}

} // namespace

ranked_logit nucleus_finder::find(std::span<const float> logits,
                                  const softmax_weights& weights,
                                  double share) {
  collect(logits, weights, share);
  const std::uint64_t wanted = fixed_share(share, sum_of_all(weights));
  std::uint64_t before = 0; // weight of what is better than all candidates
  while (candidates_.size() > few) {
    const ranked_logit pivot = candidates_[candidates_.size() / 2];
    split(pivot);
    if (better_.empty()) {
      before += fixed_weight(weights[pivot.id]);
      if (before >= wanted)
        return pivot;
      std::erase_if(others_, [&](auto& e) { return e.id == pivot.id; });
      std::swap(candidates_, others_);
      continue;
    }
    const std::uint64_t sum = sum_of(better_, weights);
    const bool ends_in_better = before + sum >= wanted;
    before += ends_in_better ? 0 : sum;
    std::swap(candidates_, ends_in_better ? better_ : others_);
  }
  std::sort(candidates_.begin(), candidates_.end());
  for (const ranked_logit& entry : candidates_) {
    before += fixed_weight(weights[entry.id]);
    if (before >= wanted)
      return entry;
  }
  return candidates_.back();
}

/// What is lighter than an even part of the cut share is cut for sure: all such
/// entries together weigh less than that share.
void nucleus_finder::collect(std::span<const float> logits,
                             const softmax_weights& weights, double share) {
  const double least = (1 - share) * weights.sum() / logits.size() / 2;
  candidates_.clear();
  for (std::size_t id = 0; id < logits.size(); ++id)
    if (weights[id] > least)
      candidates_.push_back({logits[id], static_cast<token_id>(id)});
}

void nucleus_finder::split(const ranked_logit& pivot) {
  better_.clear();
  others_.clear();
  for (const ranked_logit& entry : candidates_)
    (entry < pivot ? better_ : others_).push_back(entry);
}

} // namespace troupe::sampling
