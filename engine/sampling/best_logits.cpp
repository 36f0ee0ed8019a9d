#include "engine/sampling/best_logits.hpp"

#include <algorithm>

namespace troupe::sampling {

namespace {

void keep_best(std::vector<ranked_logit>& best, std::size_t count) {
  if (best.size() <= count)
    return;
  std::nth_element(best.begin(), best.begin() + count - 1, best.end());
  best.resize(count);
}

/// The `count` best in no order.
void collect_best(std::span<const float> logits, std::size_t count,
                  std::vector<ranked_logit>& best) {
  best.clear();
  const std::size_t room = std::min(2 * count, logits.size());
  bool has_bar = false; // all after it must be above the worst of `count`
  float bar = 0;
  for (std::size_t id = 0; id < logits.size(); ++id) {
    if (has_bar && logits[id] <= bar)
      continue;
    best.push_back({logits[id], static_cast<token_id>(id)});
    if (best.size() > count && best.size() >= room) {
      keep_best(best, count);
      bar = best.back().logit;
      has_bar = true;
    }
  }
  keep_best(best, count);
}

} // namespace

ranked_logit last_of_best(std::span<const float> logits, std::size_t count,
                          std::vector<ranked_logit>& scratch) {
  collect_best(logits, count, scratch);
  return *std::max_element(scratch.begin(), scratch.end());
}

void find_best(std::span<const float> logits, std::size_t count,
               std::vector<ranked_logit>& best) {
  best.clear();
  if (count == 0)
    return;
  collect_best(logits, count, best);
  std::sort(best.begin(), best.end());
}

} // namespace troupe::sampling
