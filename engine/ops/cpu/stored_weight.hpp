#pragma once

#include "engine/ops/cpu/half.hpp"
#include "engine/ops/cpu/tile_format.hpp"

#include <cstring>

/// Single weights of a tile.
namespace troupe::ops::cpu {
namespace {

/// The integer of column k (0-31) of a block.
inline std::int32_t weight_at(tile_format f, const std::byte* values, int lane,
                              int k) {
  const auto bits_of = [&](const std::byte* plane, int bits) {
    const int g = k / 4;
    const auto byte = plane[g % bits * 64 + lane * 4 + k % 4];
    return static_cast<std::int32_t>(byte) >> bits * (g / bits) &
           ((1 << bits) - 1);
  };
  std::int32_t stored = bits_of(values, f.low_bits);
  if (f.high_bits > 0)
    stored |= bits_of(values + 64 * f.low_bits, f.high_bits) << f.low_bits;
  return (f.looked_up ? iq4_nl_stored[stored] : stored) - f.zero;
}

/// The scales of one output for a block; what a format lacks is 0.
struct stored_scales {
  float scale;
  float minimum;
  std::int32_t scales[2];   ///< of a super-block, for columns 0-15 and 16-31
  std::int32_t minimums[2]; ///< likewise
};

inline stored_scales scales_of(tile_format f, const std::byte* tile,
                               std::int64_t b, int lane) {
  const std::byte* block = tile + scales_at(f, b);
  const std::byte* halves =
      super_blocks(f) ? tile + super_scales_at(f, b) : block;
  const auto half_at = [&](int index) {
    std::uint16_t half;
    std::memcpy(&half, halves + index * 2, sizeof half);
    return from_f16(half);
  };
  stored_scales out{half_at(lane), 0, {}, {}};
  if (super_blocks(f) || f.scales == scale_form::half_minimum)
    out.minimum = half_at(tile_lanes + lane);
  if (!super_blocks(f))
    return out;
  const auto first = static_cast<std::int32_t>(block[lane]);
  const auto last = static_cast<std::int32_t>(block[tile_lanes + lane]);
  if (f.scales == scale_form::byte_minimum)
    return {out.scale, out.minimum, {first, first}, {last, last}};
  if (f.scales == scale_form::two_nibbles)
    return {out.scale,
            out.minimum,
            {first & 15, last & 15},
            {first >> 4, last >> 4}};
  return {out.scale,
          out.minimum,
          {static_cast<std::int8_t>(first), static_cast<std::int8_t>(last)},
          {}};
}

} // namespace
} // namespace troupe::ops::cpu
