#pragma once

#include "engine/sampling/fixed_math.hpp"

#include <bit>
#include <cstdint>
#include <limits>

/// The arithmetic of a draw, element by element: what the CPU's sampler and a
/// GPU's kernel (cuda/kernels/draw.hpp) have in common, so that they draw the
/// same tokens.
namespace troupe::sampling {

// -- logits -------------------------------------------------------------------

/// Changed logits stay finite whatever the parameters are.
constexpr float finite(float logit) {
  constexpr float most = std::numeric_limits<float>::max();
  return logit < -most ? -most : logit > most ? most : logit;
}

constexpr float biased(float logit, float bias) {
  return finite(logit + bias);
}

/// Of an id that prompt or output have.
constexpr float repeated(float logit, float penalty) {
  return finite(logit > 0 ? logit / penalty : logit * penalty);
}

/// Of an id that the output has `times`.
constexpr float penalised(float logit, float frequency, float times,
                          float presence) {
  return finite(logit - frequency * times - presence);
}

// -- weights ------------------------------------------------------------------

/// e^((logit - max) / temperature), with 1 / temperature.
constexpr double weight_of(float logit, double max, double inverse) {
  return fixed_exp((logit - max) * inverse);
}

/// Weights are added up in runs of so many ids, each in lanes.
inline constexpr int run_size = 256;
inline constexpr int run_lanes = 8;

/// A run's sum from the sums of its lanes.
constexpr double sum_of_lanes(const double* lane) {
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
         ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/// A weight (0 to 1) in units of 2^-43, rounded. Sums of such are the same in
/// any order; up to 2^21 of them fit.
constexpr std::uint64_t fixed_weight(double weight) {
  constexpr double shift = 512.0; // its last bit is 2^-43
  return std::bit_cast<std::uint64_t>(weight + shift) -
         std::bit_cast<std::uint64_t>(shift);
}

/// The fewest such units that are `share` of `all`; 1 at least.
constexpr std::uint64_t fixed_share(double share, std::uint64_t all) {
  const double exact = share * static_cast<double>(all);
  const auto whole = static_cast<std::uint64_t>(exact);
  return static_cast<double>(whole) < exact ? whole + 1
                                            : (whole > 0 ? whole : 1);
}

// -- log-probabilities --------------------------------------------------------

constexpr float logprob_of(float logit, float max, double log_sum) {
  return static_cast<float>((double{logit} - max) - log_sum);
}

} // namespace troupe::sampling
