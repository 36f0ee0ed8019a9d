#include "engine/sampling/softmax.hpp"

#include "engine/sampling/draw_math.hpp"

#include <algorithm>
#include <limits>

namespace troupe::sampling {

namespace {

double sum_of_run(const double* run) {
  double lane[run_lanes] = {};
  for (int i = 0; i < run_size; i += run_lanes)
    for (int j = 0; j < run_lanes; ++j)
      lane[j] += run[i + j];
  return sum_of_lanes(lane);
}

/// In loops without a branch, so that each becomes vector code; the compiler
/// makes one version per instruction set. All give the same bits: vectors only
/// do the same operations on several elements at once, nothing is fused.
__attribute__((target_clones("avx512f", "avx2", "default"))) void
weigh_run(std::span<const float> logits, double max, double inverse,
          double* to) {
  const auto count = static_cast<int>(logits.size());
  int i = 0;
  for (; i < count; ++i)
    to[i] = (logits[i] - max) * inverse;
  for (; i < run_size; ++i)
    to[i] = lowest_exponent;
  double exponents[run_size];
  for (i = 0; i < run_size; ++i)
    exponents[i] = to[i] > lowest_exponent ? to[i] : lowest_exponent;
  for (i = 0; i < run_size; ++i)
    to[i] = exp_in_range(exponents[i]);
  for (i = 0; i < run_size; ++i)
    to[i] = exponents[i] > lowest_exponent ? to[i] : 0;
}

} // namespace

std::optional<float> largest(std::span<const float> logits) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  constexpr std::size_t width = 16;
  float best[width];
  int bad[width] = {};
  for (float& x : best)
    x = -infinity;
  std::size_t i = 0;
  for (; i + width <= logits.size(); i += width) {
    const float* x = logits.data() + i;
    for (std::size_t j = 0; j < width; ++j) {
      best[j] = x[j] > best[j] ? x[j] : best[j];
      bad[j] |= x[j] < infinity ? 0 : 1;
    }
  }
  for (; i < logits.size(); ++i) {
    best[0] = logits[i] > best[0] ? logits[i] : best[0];
    bad[0] |= logits[i] < infinity ? 0 : 1;
  }
  float result = -infinity;
  for (std::size_t j = 0; j < width; ++j) {
    if (bad[j])
      return std::nullopt;
    result = best[j] > result ? best[j] : result;
  }
  if (result == -infinity)
    return std::nullopt;
  return result;
}

void softmax_weights::compute(std::span<const float> logits, float max,
                              double temperature) {
  constexpr std::size_t size = run_size;
  const std::size_t runs = (logits.size() + size - 1) / size;
  weights_.resize(runs * run_size);
  run_sums_.resize(runs);
  const double inverse = 1.0 / temperature;
  for (std::size_t run = 0; run < runs; ++run) {
    const auto rest = logits.subspan(run * run_size);
    weigh_run(rest.first(std::min(rest.size(), size)), max, inverse,
              weights_.data() + run * run_size);
  }
  add_up();
}

void softmax_weights::drop_below(double least) {
  for (double& weight : weights_)
    weight = weight < least ? 0 : weight;
  add_up();
}

void softmax_weights::drop_worse(std::span<const float> logits,
                                 const ranked_logit& last) {
  for (std::size_t id = 0; id < logits.size(); ++id) {
    const bool is_worse =
        last < ranked_logit{logits[id], static_cast<token_id>(id)};
    weights_[id] = is_worse ? 0 : weights_[id];
  }
  add_up();
}

void softmax_weights::add_up() {
  sum_ = 0;
  for (std::size_t run = 0; run < run_sums_.size(); ++run) {
    run_sums_[run] = sum_of_run(weights_.data() + run * run_size);
    sum_ += run_sums_[run];
  }
}

std::size_t softmax_weights::pick(double fraction) const {
  const double target = fraction * sum_;
  double before = 0;
  std::size_t chosen_run = 0;
  for (std::size_t run = 0; run < run_sums_.size(); ++run) {
    if (run_sums_[run] == 0)
      continue;
    chosen_run = run;
    if (before + run_sums_[run] > target)
      break;
    before += run_sums_[run];
  }
  // Rounding may carry the target past the end of its run: the last weight of
  // the run stands for it.
  std::size_t chosen = chosen_run * run_size;
  for (std::size_t id = chosen; id < (chosen_run + 1) * run_size; ++id) {
    if (weights_[id] == 0)
      continue;
    chosen = id;
    before += weights_[id];
    if (before > target)
      break;
  }
  return chosen;
}

} // namespace troupe::sampling
