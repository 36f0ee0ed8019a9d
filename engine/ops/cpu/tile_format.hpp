#pragma once

#include <cstddef>
#include <cstdint>

/// How 16 outputs of a quantised weight lie in memory: units of two blocks of
/// 32 columns, or of eight where the file has super-blocks of 256. A unit is
/// the values of its blocks, then the scales of its blocks, then, for a
/// super-block, 16 f16 scales and 16 f16 minimums (zeros if it has none).
///
/// Values of a block: planes of bits, the low bits first. The 32 columns are 8
/// groups of 4. A plane of n bits is [n][16 outputs][4 columns] bytes: group g
/// lies in the bytes [g % n], from bit n * (g / n) on. So in a plane of four
/// bits the low halves of the bytes are columns 0-15, the high ones 16-31.
///
/// This header is seen by files that are compiled for AVX-512, so its functions
/// are in the unnamed namespace: each file has its own.
namespace troupe::ops::cpu {

/// Outputs of a weight tile, and lanes of a vector.
constexpr int tile_lanes = 16;
/// Columns that share a scale of the activations.
constexpr int block_columns = 32;

/// What stands in the scales of a block.
enum class scale_form : std::uint8_t {
  half,         ///< 16 f16 scales
  half_minimum, ///< 16 f16 scales, 16 f16 minimums
  // of super-blocks:
  byte_minimum, ///< 16 unsigned bytes: scales; 16: minimums
  two_bytes,    ///< 16 signed bytes: scales of columns 0-15; 16: of 16-31
  two_nibbles,  ///< the same, the low half of a byte the scale, unsigned, and
                ///< the high half the minimum
};

struct tile_format {
  int low_bits;      ///< of the first plane
  int high_bits;     ///< of the second; 0: there is none
  std::int32_t zero; ///< the stored integer that means 0
  scale_form scales;
  bool looked_up = false; ///< the stored integer is iq4_nl_stored[bits]
};

/// In the order in which element_type names the quantised types.
constexpr tile_format tile_formats[] = {
    {8, 0, 128, scale_form::half},       // q8_0
    {4, 0, 8, scale_form::half},         // q4_0
    {4, 0, 0, scale_form::half_minimum}, // q4_1
    {4, 1, 16, scale_form::half},        // q5_0
    {4, 1, 0, scale_form::half_minimum}, // q5_1
    {4, 0, 128, scale_form::half, true}, // iq4_nl
    {4, 0, 0, scale_form::byte_minimum}, // q4_k
    {4, 1, 0, scale_form::byte_minimum}, // q5_k
    {4, 2, 32, scale_form::two_bytes},   // q6_k
    {2, 1, 4, scale_form::two_bytes},    // q3_k
    {2, 0, 0, scale_form::two_nibbles},  // q2_k
};
constexpr int quantised_formats = sizeof tile_formats / sizeof(tile_format);

/// IQ4_NL's sixteen values (GGML), + 128.
alignas(16) constexpr std::uint8_t iq4_nl_stored[16] = {
    1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

namespace {

constexpr bool super_blocks(tile_format f) {
  return f.scales >= scale_form::byte_minimum;
}
/// Columns 0-15 and 16-31 have scales of their own.
constexpr bool two_scales(tile_format f) {
  return f.scales >= scale_form::two_bytes;
}
constexpr std::int64_t unit_blocks(tile_format f) {
  return super_blocks(f) ? 8 : 2;
}
constexpr std::int64_t value_bytes(tile_format f) {
  return 64 * (f.low_bits + f.high_bits);
}
constexpr std::int64_t scale_bytes(tile_format f) {
  return f.scales == scale_form::half_minimum ? 64 : 32;
}
constexpr std::int64_t unit_bytes(tile_format f) {
  return unit_blocks(f) * (value_bytes(f) + scale_bytes(f)) +
         (super_blocks(f) ? 64 : 0);
}

// Where in a tile block b has its values, its scales, and the scales of its
// super-block.
constexpr std::int64_t values_at(tile_format f, std::int64_t b) {
  return b / unit_blocks(f) * unit_bytes(f) +
         b % unit_blocks(f) * value_bytes(f);
}
constexpr std::int64_t scales_at(tile_format f, std::int64_t b) {
  return b / unit_blocks(f) * unit_bytes(f) + unit_blocks(f) * value_bytes(f) +
         b % unit_blocks(f) * scale_bytes(f);
}
constexpr std::int64_t super_scales_at(tile_format f, std::int64_t b) {
  return (b / unit_blocks(f) + 1) * unit_bytes(f) - 64;
}

} // namespace
} // namespace troupe::ops::cpu
