#include "engine/ops/cpu/rope_table.hpp"

#include "engine/ops/fixed_root.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::ops::cpu {

turn turn_by(double angle) {
  // angle = k * pi/2 + x with |x| <= pi/4; pi/2 in three parts of 33 bits, so
  // that k * part is exact for k < 2^20.
  const double k = std::floor(angle * 0.63661977236758134308 + 0.5);
  constexpr double part_1 = 0x1.921fb544p+0;
  constexpr double part_2 = 0x1.0b4611a6p-34;
  constexpr double part_3 = 0x1.3198a2e037073p-69;
  const double x = ((angle - k * part_1) - k * part_2) - k * part_3;
  const double z = x * x;
  double sine = 0, cosine = 0;
  for (int i = 19; i > 1; i -= 2) // Taylor, innermost term first
    sine = -(1 + sine) * z / (i * (i - 1));
  sine = x + x * sine;
  for (int i = 20; i > 0; i -= 2)
    cosine = -(1 + cosine) * z / (i * (i - 1));
  cosine = 1 + cosine;
  switch (static_cast<int>(k - 4 * std::floor(k / 4))) {
  case 0:
    return {cosine, sine};
  case 1:
    return {-sine, cosine};
  case 2:
    return {-cosine, -sine};
  default:
    return {sine, -cosine};
  }
}

rope_table::rope_table(const rope_params& params) : params_(params) {
  const auto pairs = params.dims / 2;
  const double step = fixed_root(params.theta, std::max(1, pairs));
  double turned = 1;
  for (std::int32_t i = 0; i < pairs; ++i) {
    const double factor = params.factors.empty() ? 1 : params.factors[i];
    frequencies_.push_back(1 / (turned * factor));
    turned *= step;
  }
}

bool rope_table::is_for(const rope_params& params) const {
  return params.theta == params_.theta && params.dims == params_.dims &&
         params.factors == params_.factors && params.scale == params_.scale;
}

void rope_table::cover(std::int32_t position) {
  while (static_cast<std::int64_t>(chunks_.size()) * chunk_positions <=
         position) {
    auto chunk = std::make_unique<float[]>(chunk_positions * pairs() * 2);
    const auto first =
        static_cast<std::int64_t>(chunks_.size()) * chunk_positions;
    float* out = chunk.get();
    for (std::int64_t p = first; p < first + chunk_positions; ++p)
      for (const double frequency : frequencies_) {
        const auto turned = turn_by(static_cast<double>(p) * frequency);
        *out++ = static_cast<float>(turned.cosine * params_.scale);
        *out++ = static_cast<float>(turned.sine * params_.scale);
      }
    chunks_.push_back(std::move(chunk));
  }
}

} // namespace troupe::ops::cpu
