#include "engine/ops/cpu/expert_plan.hpp"

#include <cassert>

namespace troupe::ops::cpu {

void expert_plan::make_room(std::int64_t rows, std::int32_t chosen) {
  chosen_ = chosen;
  const auto choices = static_cast<std::size_t>(rows * chosen);
  experts_.resize(choices);
  shares_.resize(choices);
  sorted_rows_.resize(choices);
  sorted_shares_.resize(choices);
}

void expert_plan::sort(std::int32_t experts) {
  starts_.assign(static_cast<std::size_t>(experts) + 1, 0);
  for (auto expert : experts_) {
    assert(expert >= 0 && expert < experts);
    ++starts_[static_cast<std::size_t>(expert) + 1];
  }
  for (std::size_t i = 1; i < starts_.size(); ++i)
    starts_[i] += starts_[i - 1];
  for (std::size_t i = 0; i < experts_.size(); ++i) {
    const auto at = starts_[static_cast<std::size_t>(experts_[i])]++;
    sorted_rows_[at] = static_cast<std::int32_t>(i) / chosen_;
    sorted_shares_[at] = shares_[i];
  }
  // Each start has moved to the next one's place.
  starts_.insert(starts_.begin(), 0);
}

expert_rows expert_plan::rows_of(std::int32_t expert) const {
  const auto first = starts_[static_cast<std::size_t>(expert)];
  const auto count = starts_[static_cast<std::size_t>(expert) + 1] - first;
  return {std::span{sorted_rows_}.subspan(first, count),
          std::span{sorted_shares_}.subspan(first, count)};
}

} // namespace troupe::ops::cpu
