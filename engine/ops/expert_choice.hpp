#pragma once

#include <limits>

namespace troupe::ops {

/// As what an expert's score counts where a row's experts are chosen: experts
/// with a greater score go first, of equal ones the first. What is no number
/// counts as -infinity, so that any scores choose different experts.
constexpr float counted_score(float score) {
  return score == score ? score : -std::numeric_limits<float>::infinity();
}

} // namespace troupe::ops
