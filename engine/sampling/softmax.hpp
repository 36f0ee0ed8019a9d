#pragma once

#include "engine/sampling/best_logits.hpp"

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace troupe::sampling {

/// The largest logit; nothing if one is NaN or plus infinity, or if none is
/// above minus infinity: nothing can be drawn from such a row.
std::optional<float> largest(std::span<const float> logits);

/// Weights e^((logit - max) / temperature) of a row, and their sums in one
/// fixed order (draw_math.hpp): lanes within a run of ids, then run after run.
class softmax_weights {
public:
  void compute(std::span<const float> logits, float max, double temperature);

  /// Sets weights below `least` to 0. The largest weight is 1.
  void drop_below(double least);

  /// Sets the weights of all that rank behind `last` to 0.
  void drop_worse(std::span<const float> logits, const ranked_logit& last);

  double operator[](std::size_t id) const {
    return weights_[id];
  }

  /// By id; what is beyond the vocabulary is 0.
  std::span<const double> all() const {
    return weights_;
  }

  double sum() const {
    return sum_;
  }

  /// The id at which the running sum passes `fraction` of the whole. An id of
  /// weight 0 is never given.
  std::size_t pick(double fraction) const;

private:
  void add_up();

  std::vector<double> weights_; ///< padded with 0 to whole runs
  std::vector<double> run_sums_;
  double sum_ = 0;
};

} // namespace troupe::sampling
