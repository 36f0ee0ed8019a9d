#include "engine/ops/cpu/lane_kernels.hpp"
#include "engine/ops/cpu/lanes_plain.hpp"
#include "engine/ops/cpu/stored_weight.hpp"

namespace troupe::ops::cpu {
namespace {

/// A block of 32 activations of one row.
struct block_activations {
  const std::int8_t* q;
  const block_scale& scale;

  /// sum(w * q) over 16 columns from `first`.
  std::int32_t product(tile_format f, const std::byte* values, int lane,
                       int first) const {
    std::int32_t sum = 0;
    for (int k = first; k < first + 16; ++k)
      sum += weight_at(f, values, lane, k) * q[k];
    return sum;
  }
};

float with_block(tile_format f, const std::byte* tile, std::int64_t b, int lane,
                 const block_activations& x, float s) {
  const std::byte* values = tile + values_at(f, b);
  const auto w = scales_of(f, tile, b, lane);
  const std::int32_t first = x.product(f, values, lane, 0);
  const std::int32_t last = x.product(f, values, lane, 16);
  const float d = x.scale.d;
  switch (f.scales) {
  case scale_form::half:
    return std::fma(static_cast<float>(first + last), w.scale * d, s);
  case scale_form::half_minimum:
    s = std::fma(static_cast<float>(first + last), w.scale * d, s);
    return std::fma(w.minimum, x.scale.d_sum, s);
  case scale_form::byte_minimum: {
    const float scale = w.scale * static_cast<float>(w.scales[0]);
    const float minimum = w.minimum * static_cast<float>(w.minimums[0]);
    s = std::fma(static_cast<float>(first + last), scale * d, s);
    return std::fma(-minimum, x.scale.d_sum, s);
  }
  case scale_form::two_bytes:
  case scale_form::two_nibbles: {
    const std::int32_t i = w.scales[0] * first + w.scales[1] * last;
    s = std::fma(static_cast<float>(i), w.scale * d, s);
    if (f.scales == scale_form::two_bytes)
      return s;
    const std::int32_t j =
        w.minimums[0] * x.scale.sums[0] + w.minimums[1] * x.scale.sums[1];
    return std::fma(-static_cast<float>(j), w.minimum * d, s);
  }
  }
  return s;
}

void quantised_weights(tile_format f, const std::byte* tile,
                       std::int64_t blocks, const quantised_group& x,
                       const tile_output& out) {
  for (int row = 0; row < x.rows; ++row) {
    plain_lanes::f32 sums{};
    for (std::int64_t b = 0; b < blocks; ++b) {
      const auto at = b * x.rows + row;
      const block_activations activations{x.q + at * block_columns,
                                          x.scale[at]};
      for (int lane = 0; lane < tile_lanes; ++lane)
        sums.v[lane] = with_block(f, tile, b, lane, activations, sums.v[lane]);
    }
    finish_row<plain_lanes>(out, row, sums);
  }
}

template <tile_format F>
struct weights {
  static void run(const std::byte* tile, std::int64_t blocks,
                  const quantised_group& x, const tile_output& out) {
    quantised_weights(F, tile, blocks, x, out);
  }
};

constexpr kernel_table table = make_table<plain_lanes, weights>();

} // namespace

const kernel_table& plain_kernels() {
  return table;
}

} // namespace troupe::ops::cpu
