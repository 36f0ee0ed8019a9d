#pragma once

#include "engine/ops/backend.hpp"
#include "engine/ops/cpu/pages.hpp"
#include "engine/ops/cpu/team.hpp"
#include "engine/ops/cpu/tile_format.hpp"

namespace troupe::ops::cpu {

/// The place of a quantised type in `tile_formats` and in the table of kernels.
constexpr int quantised_index(element_type type) {
  return static_cast<int>(type) - static_cast<int>(element_type::q8_0);
}
static_assert(quantised_index(element_type::q2_k) == quantised_formats - 1);

tile_format tile_format_of(element_type type); ///< of a quantised type

/// Rows of one type within a weight. Its tiles of 16 outputs lie one after the
/// other; the last is filled up with zeros.
struct weight_part {
  element_type type = element_type::f32;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  std::int64_t first_tile = 0; ///< among the tiles of the weight
  std::int64_t tile_bytes = 0;
  std::byte* tiles = nullptr;

  std::int64_t tile_count() const {
    return (rows + 15) / 16;
  }
};

/// A weight in tiles (tile_format.hpp): of the size it has in the file but for
/// the padding and at most a fifth of a bit per weight, and each tile in one
/// piece, so that a product reads it from memory once, front to back.
class tiled_weight final : public weight {
public:
  /// Repacks; the views may go away afterwards. Fails on no parts, differing
  /// `cols`, sizes that do not match, or too little memory.
  static result<std::unique_ptr<tiled_weight>>
  pack(std::span<const matrix_view> parts, team& workers);

  /// The same without its contents, which the views need not have: for its
  /// size.
  static result<std::unique_ptr<tiled_weight>>
  lay_out(std::span<const matrix_view> parts);

  std::int64_t rows() const override {
    return rows_;
  }
  std::int64_t cols() const override {
    return cols_;
  }
  std::int64_t bytes() const override {
    return bytes_;
  }

  std::int64_t tiles() const {
    return tiles_;
  }
  const std::vector<weight_part>& parts() const {
    return parts_;
  }
  /// The part that holds tile `tile` of the weight.
  const weight_part& part_of_tile(std::int64_t tile) const;
  /// Row `row` as floats, with the roundings of GGML: scale * w, then + minimum
  /// (q4_1, q5_1) or, with super-blocks, - minimum.
  void read_row(std::int64_t row, float* out) const;

private:
  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
  std::int64_t tiles_ = 0;
  std::int64_t bytes_ = 0;
  std::vector<weight_part> parts_;
  pages memory_;
};

} // namespace troupe::ops::cpu
