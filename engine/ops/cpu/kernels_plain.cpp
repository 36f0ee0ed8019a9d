#include "engine/ops/cpu/lane_kernels.hpp"
#include "engine/ops/cpu/lanes_plain.hpp"

#include <cstring>

namespace troupe::ops::cpu {
namespace {

/// Stored integer of column k of output `lane`.
int stored(const std::byte* values, bool four_bits, int lane, int k) {
  const int column = four_bits ? k % 16 : k;
  const auto byte =
      static_cast<int>(values[column / 4 * 64 + lane * 4 + column % 4]);
  if (!four_bits)
    return byte;
  return k < 16 ? byte & 15 : byte >> 4;
}

float half_at(const std::byte* from, int index) {
  std::uint16_t half;
  std::memcpy(&half, from + index * 2, sizeof half);
  return from_f16(half);
}

struct layout {
  tile_format format;
  bool four_bits;
  bool minimum;
  int zero; ///< the stored integer that means 0
};

void quantised_weights(const layout& w, const std::byte* tile,
                       std::int64_t blocks, const quantised_group& x,
                       const tile_output& out) {
  for (int row = 0; row < x.rows; ++row) {
    plain_lanes::f32 sums{};
    for (std::int64_t b = 0; b < blocks; ++b) {
      const std::byte* values = values_of(tile, w.format, b);
      const std::byte* scales = scales_of(tile, w.format, b);
      const std::int8_t* q = x.q + (b * x.rows + row) * block_columns;
      const block_scale& s = x.scale[b * x.rows + row];
      for (int lane = 0; lane < tile_lanes; ++lane) {
        std::int32_t i = 0;
        for (int k = 0; k < block_columns; ++k)
          i += (stored(values, w.four_bits, lane, k) - w.zero) * q[k];
        float& sum = sums.v[lane];
        sum = std::fma(static_cast<float>(i), half_at(scales, lane) * s.d, sum);
        if (w.minimum)
          sum = std::fma(half_at(scales, tile_lanes + lane), s.d_sum, sum);
      }
    }
    finish_row<plain_lanes>(out, row, sums);
  }
}

void q8_0(const std::byte* tile, std::int64_t blocks, const quantised_group& x,
          const tile_output& out) {
  quantised_weights({q8_0_format, false, false, 128}, tile, blocks, x, out);
}

void q4_0(const std::byte* tile, std::int64_t blocks, const quantised_group& x,
          const tile_output& out) {
  quantised_weights({q4_0_format, true, false, 8}, tile, blocks, x, out);
}

void q4_1(const std::byte* tile, std::int64_t blocks, const quantised_group& x,
          const tile_output& out) {
  quantised_weights({q4_1_format, true, true, 0}, tile, blocks, x, out);
}

constexpr kernel_table table = make_table<plain_lanes>(q8_0, q4_0, q4_1);

} // namespace

const kernel_table& plain_kernels() {
  return table;
}

} // namespace troupe::ops::cpu
