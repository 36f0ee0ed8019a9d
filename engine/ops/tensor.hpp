#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace troupe::ops {

/// How the elements of a weight are stored. The quantised ones are GGML's block
/// formats: 32 weights with one f16 scale (and, for q4_1 and q5_1, one f16
/// minimum), or, for the k ones, 256 weights with one f16 scale (and minimum)
/// and a small integer scale (and minimum) for each 16 or 32 of them. e4m3 is
/// an eight-bit float, of weights that have scales beside them
/// (matrix_view::scales): for GPUs alone.
enum class element_type : std::uint8_t {
  f32,
  f16,
  bf16,
  q8_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  iq4_nl,
  q4_k,
  q5_k,
  q6_k,
  q3_k,
  q2_k,
  e4m3,
};

/// Elements per block and bytes per block of a type: {1, 4} for f32,
/// {32, 34} for q8_0, {256, 144} for q4_k.
struct block_layout {
  std::int64_t elements;
  std::int64_t bytes;
};

constexpr block_layout layout_of(element_type type) {
  switch (type) {
  case element_type::f32:
    return {1, 4};
  case element_type::f16:
  case element_type::bf16:
    return {1, 2};
  case element_type::q8_0:
    return {32, 34};
  case element_type::q4_0:
    return {32, 18};
  case element_type::q4_1:
    return {32, 20};
  case element_type::q5_0:
    return {32, 22};
  case element_type::q5_1:
    return {32, 24};
  case element_type::iq4_nl:
    return {32, 18};
  case element_type::q4_k:
    return {256, 144};
  case element_type::q5_k:
    return {256, 176};
  case element_type::q6_k:
    return {256, 210};
  case element_type::q3_k:
    return {256, 110};
  case element_type::q2_k:
    return {256, 84};
  case element_type::e4m3:
    return {1, 1};
  }
  return {1, 0};
}

constexpr bool quantised(element_type type) {
  return layout_of(type).elements > 1;
}

/// How a GPU keeps keys and values: e4m3 has four bits of exponent and three of
/// mantissa, scale 1; what is beyond 448 becomes 448.
enum class kv_type : std::uint8_t { f16, e4m3 };

/// Columns that share a scale, where a row in e4m3 has several.
inline constexpr std::int64_t scale_cols = 128;

/// Scales of such a row of so many columns.
constexpr std::int64_t scales_of_cols(std::int64_t cols) {
  return (cols + scale_cols - 1) / scale_cols;
}

/// A weight matrix as a file holds it: `rows` outputs of `cols` inputs each,
/// row after row without gaps. Does not own `bytes`; they must outlive the view
/// only as long as the callee says. `cols` is a multiple of the block size and
/// `bytes.size()` is exact (the loader has checked both).
struct matrix_view {
  element_type type = element_type::f32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::span<const std::byte> bytes;
  /// A GPU is asked to keep it as e4m3 with a scale per row; the type is one of
  /// floats then. Other backends keep it as it is.
  bool as_e4m3 = false;
  /// Of e4m3: what a row's numbers are meant times, `row_scales` for each row:
  /// one, or one for each `scale_cols` columns. Live as `bytes` do.
  std::span<const float> scales = {};
  std::int64_t row_scales = 1;
};

} // namespace troupe::ops
