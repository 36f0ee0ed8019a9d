#pragma once

#include "tests/unit/model/feeding.hpp"
#include "tests/unit/model/reference_file.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

namespace troupe::test {

/// Feeds the first sequence of a reference with all logits and returns the
/// largest difference from it.
inline float worst_difference(loaded_model& model,
                              const reference_file& reference) {
  REQUIRE(reference.vocabulary ==
          static_cast<std::size_t>(model.config.vocabulary));
  REQUIRE(reference.top_k == reference.vocabulary);
  const auto& expected = reference.sequences.front();
  fed_sequence sequence{expected.ids, {4, 0, 7, 2, 9}, 0, {}};
  feed_alone(*model.decoder, sequence, 64);
  float worst = 0;
  for (std::size_t i = 0; i < expected.best.size(); ++i) {
    auto position = i / reference.top_k;
    auto ours = sequence.logits[position][expected.best[i]];
    worst = std::max(worst, std::abs(ours - expected.logits[i]));
  }
  return worst;
}

} // namespace troupe::test
