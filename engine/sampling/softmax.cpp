#include "engine/sampling/softmax.hpp"

#include "engine/sampling/fixed_math.hpp"

#include <limits>

namespace troupe::sampling {

namespace {

constexpr std::size_t run_size = 256;
constexpr std::size_t lanes = 8;

double sum_of_run(const double* run) {
  double lane[lanes] = {};
  for (std::size_t i = 0; i < run_size; i += lanes)
    for (std::size_t j = 0; j < lanes; ++j)
      lane[j] += run[i + j];
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
         ((lane[1] + lane[5]) + (lane[3] + lane[7]));
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
  const std::size_t runs = (logits.size() + run_size - 1) / run_size;
  weights_.resize(runs * run_size);
  run_sums_.resize(runs);
  const double inverse = 1.0 / temperature;
  const double shift = max;
  const float* from = logits.data();
  double* to = weights_.data();
  for (std::size_t i = 0; i < logits.size(); ++i)
    to[i] = fixed_exp((from[i] - shift) * inverse);
  for (std::size_t i = logits.size(); i < weights_.size(); ++i)
    to[i] = 0;
  add_up();
}

void softmax_weights::drop_below(double least) {
  for (double& weight : weights_)
    weight = weight < least ? 0 : weight;
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
  for (std::size_t i = 0; i < run_size; ++i) {
    const std::size_t id = chosen_run * run_size + i;
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
