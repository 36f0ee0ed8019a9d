#pragma once

#include "engine/sampling/softmax.hpp"

#include <span>
#include <vector>

namespace troupe::sampling {

/// Finds where top_p cuts. The members are scratch space.
class nucleus_finder {
public:
  /// The last of the fewest best whose weights together reach `share` (below 1)
  /// of the sum of all. Weights are added up as whole numbers
  /// (`fixed_weight`), so that no order of sums decides where the border is.
  /// Expected time is linear, whatever the shape of the
  /// distribution: nothing is sorted but the last few.
  ranked_logit find(std::span<const float> logits,
                    const softmax_weights& weights, double share);

private:
  void collect(std::span<const float> logits, const softmax_weights& weights,
               double share);
  void split(const ranked_logit& pivot);

  std::vector<ranked_logit> candidates_;
  std::vector<ranked_logit> better_;
  std::vector<ranked_logit> others_; ///< the pivot and what is worse
};

} // namespace troupe::sampling
