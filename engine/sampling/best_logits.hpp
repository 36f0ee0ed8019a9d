#pragma once

#include "engine/sampling/sampling_params.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace troupe::sampling {

struct ranked_logit {
  float logit = 0;
  token_id id = 0;
};

/// The order of candidates everywhere: higher logits first, then lower ids.
inline bool operator<(const ranked_logit& a, const ranked_logit& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/// The worst of the `count` best (1 or more; of all, if there are fewer).
/// `scratch` is overwritten. Linear time; no logit may be NaN.
ranked_logit last_of_best(std::span<const float> logits, std::size_t count,
                          std::vector<ranked_logit>& scratch);

/// Puts the `count` best (all, if there are fewer) into `best`, in order. One
/// pass over the row and a sort of `count` entries. No logit may be NaN.
void find_best(std::span<const float> logits, std::size_t count,
               std::vector<ranked_logit>& best);

} // namespace troupe::sampling
