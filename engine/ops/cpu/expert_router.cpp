#include "engine/ops/cpu/expert_router.hpp"

#include "engine/ops/expert_choice.hpp"

#include <cassert>

namespace troupe::ops::cpu {

void expert_router::choose(const float* scores, std::int32_t experts,
                           std::span<std::int32_t> chosen) {
  taken_.assign(experts, 0);
  for (auto& best : chosen) {
    best = -1;
    for (std::int32_t e = 0; e < experts; ++e)
      if (!taken_[e] &&
          (best < 0 || counted_score(scores[e]) > counted_score(scores[best])))
        best = e;
    taken_[best] = 1;
  }
}

void expert_router::run(const kernel_table& kernels, const float* scores,
                        std::int64_t rows, std::int32_t experts, bool normalise,
                        const routing_view& out) {
  assert(out.chosen >= 1 && out.chosen <= experts);
  shares_.resize(experts);
  for (std::int64_t r = 0; r < rows; ++r, scores += experts) {
    const auto chosen = out.experts.subspan(r * out.chosen, out.chosen);
    const auto shares = out.shares.subspan(r * out.chosen, out.chosen);
    choose(scores, experts, chosen);
    kernels.softmax(scores, experts, shares_.data());
    float sum = 0;
    for (std::int32_t i = 0; i < out.chosen; ++i)
      sum += shares[i] = shares_[chosen[i]];
    if (normalise)
      for (auto& share : shares)
        share /= sum;
  }
}

} // namespace troupe::ops::cpu
