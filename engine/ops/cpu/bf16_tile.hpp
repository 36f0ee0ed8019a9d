#pragma once

#include "engine/ops/cpu/tile_format.hpp"

#include <cstddef>
#include <cstdint>

/// How 16 outputs of a weight in bf16 lie in memory: blocks of 32 columns, each
/// [16 pairs of columns][16 outputs][2], the last one filled up with zeros.
/// What is below 2^-56 in magnitude is stored as 0 (kernels.hpp says why).
namespace troupe::ops::cpu {
namespace {

constexpr int column_pairs = block_columns / 2;
constexpr std::int64_t bf16_block_bytes = block_columns * tile_lanes * 2;

constexpr std::int64_t bf16_blocks(std::int64_t cols) {
  return (cols + block_columns - 1) / block_columns;
}

/// Where in a tile the weight of a column and an output lies.
constexpr std::int64_t bf16_at(std::int64_t column, int lane) {
  return column / 2 * tile_lanes * 4 + lane * 4 + column % 2 * 2;
}

/// The bits of a float that a bf16 has.
constexpr int upper_half = static_cast<int>(0xffff0000);

/// The least magnitude that counts, 2^-56, as the bits of a bf16 and a float.
constexpr std::uint16_t least_bf16 = (127 - 56) << 7;
constexpr std::uint32_t least_rounded = std::uint32_t{least_bf16} << 16;

} // namespace
} // namespace troupe::ops::cpu
