#include "engine/ops/cpu/tiled_weight.hpp"

#include "engine/ops/cpu/half.hpp"
#include "engine/ops/cpu/kernels.hpp"

#include <algorithm>
#include <cstring>

namespace troupe::ops::cpu {

namespace {

bool quantised(element_type type) {
  return layout_of(type).elements > 1;
}

tile_format format_of(element_type type) {
  return type == element_type::q8_0   ? q8_0_format
         : type == element_type::q4_0 ? q4_0_format
                                      : q4_1_format;
}

std::int64_t pair_bytes(tile_format f) {
  return 2 * (f.value_bytes + f.scale_bytes);
}

std::int64_t tile_bytes_of(element_type type, std::int64_t cols) {
  const auto layout = layout_of(type);
  if (!quantised(type))
    return (cols * layout.bytes * tile_lanes + 63) / 64 * 64;
  return (cols / block_columns + 1) / 2 * pair_bytes(format_of(type));
}

result<void> check(std::span<const matrix_view> parts) {
  if (parts.empty())
    return error{errc::invalid_argument, "a weight has no parts"};
  for (const auto& part : parts) {
    const auto layout = layout_of(part.type);
    if (part.rows <= 0 || part.cols <= 0 || part.cols % layout.elements != 0)
      return error{errc::invalid_argument,
                   "a weight's shape does not fit its type"};
    if (part.cols != parts[0].cols)
      return error{errc::invalid_argument,
                   "stacked weights differ in their number of inputs"};
    constexpr std::int64_t most = std::int64_t{1} << 31;
    if (part.rows > most || part.cols > most)
      return error{errc::limit, "a weight has more than 2^31 rows or columns"};
  }
  return {};
}

result<void> check_bytes(std::span<const matrix_view> parts) {
  for (const auto& part : parts) {
    const auto layout = layout_of(part.type);
    const auto row_bytes = part.cols / layout.elements * layout.bytes;
    if (part.bytes.size() % row_bytes != 0 ||
        static_cast<std::int64_t>(part.bytes.size() / row_bytes) != part.rows)
      return error{errc::invalid_argument,
                   "a weight's bytes do not match its shape"};
  }
  return {};
}

/// Puts one row of a quantised weight into lane `lane` of its tile. A block in
/// the file is its scale (and minimum), then its values in column order; 4-bit
/// values hold column k in the low and k + 16 in the high nibble of byte k.
void pack_blocks(const weight_part& part, const std::byte* row,
                 std::int64_t cols, int lane, std::byte* tile) {
  const auto format = format_of(part.type);
  const auto block_bytes = layout_of(part.type).bytes;
  const int headers = part.type == element_type::q4_1 ? 2 : 1;
  const int groups = format.value_bytes / 64;
  const std::uint32_t flip = part.type == element_type::q8_0 ? 0x80808080u : 0;
  for (std::int64_t b = 0; b < cols / block_columns; ++b) {
    const std::byte* block = row + b * block_bytes;
    std::byte* pair = tile + b / 2 * pair_bytes(format);
    std::byte* values = pair + b % 2 * format.value_bytes;
    std::byte* scales =
        pair + 2 * format.value_bytes + b % 2 * format.scale_bytes;
    for (int h = 0; h < headers; ++h)
      std::memcpy(scales + h * 32 + lane * 2, block + h * 2, 2);
    for (int g = 0; g < groups; ++g) {
      std::uint32_t four;
      std::memcpy(&four, block + headers * 2 + g * 4, 4);
      four ^= flip;
      std::memcpy(values + g * 64 + lane * 4, &four, 4);
    }
  }
}

void pack_floats(const weight_part& part, const std::byte* row,
                 std::int64_t cols, int lane, std::byte* tile) {
  const auto size = layout_of(part.type).bytes;
  for (std::int64_t k = 0; k < cols; ++k)
    std::memcpy(tile + (k * tile_lanes + lane) * size, row + k * size, size);
}

void pack_tile(const weight_part& part, const matrix_view& view,
               std::int64_t index) {
  const auto layout = layout_of(view.type);
  const auto row_bytes = view.cols / layout.elements * layout.bytes;
  std::byte* tile = part.tiles + index * part.tile_bytes;
  for (int lane = 0; lane < tile_lanes; ++lane) {
    const auto row = index * tile_lanes + lane;
    if (row >= part.rows)
      return;
    const std::byte* from = view.bytes.data() + row * row_bytes;
    if (quantised(view.type))
      pack_blocks(part, from, view.cols, lane, tile);
    else
      pack_floats(part, from, view.cols, lane, tile);
  }
}

float half_at(const std::byte* from) {
  std::uint16_t half;
  std::memcpy(&half, from, sizeof half);
  return from_f16(half);
}

void read_blocks(const weight_part& part, const std::byte* tile, int lane,
                 std::int64_t cols, float* out) {
  const auto format = format_of(part.type);
  const bool eight_bits = part.type == element_type::q8_0;
  for (std::int64_t k = 0; k < cols; ++k) {
    const auto b = k / block_columns;
    const int column = static_cast<int>(k % block_columns);
    const std::byte* pair = tile + b / 2 * pair_bytes(format);
    const std::byte* scale =
        pair + 2 * format.value_bytes + b % 2 * format.scale_bytes + lane * 2;
    const int at = eight_bits ? column : column % 16;
    const auto byte = static_cast<int>(
        pair[b % 2 * format.value_bytes + at / 4 * 64 + lane * 4 + at % 4]);
    const int value = eight_bits    ? byte - 128
                      : column < 16 ? byte & 15
                                    : byte >> 4;
    const float d = half_at(scale);
    if (part.type == element_type::q4_1)
      out[k] = d * static_cast<float>(value) + half_at(scale + 32);
    else
      out[k] = d * static_cast<float>(eight_bits ? value : value - 8);
  }
}

void read_floats(const weight_part& part, const std::byte* tile, int lane,
                 std::int64_t cols, float* out) {
  for (std::int64_t k = 0; k < cols; ++k) {
    const auto at = k * tile_lanes + lane;
    if (part.type == element_type::f32) {
      std::memcpy(out + k, tile + at * 4, 4);
      continue;
    }
    std::uint16_t bits;
    std::memcpy(&bits, tile + at * 2, 2);
    out[k] = part.type == element_type::f16 ? from_f16(bits) : from_bf16(bits);
  }
}

} // namespace

result<std::unique_ptr<tiled_weight>>
tiled_weight::lay_out(std::span<const matrix_view> views) {
  if (auto checked = check(views); !checked)
    return checked.error();
  auto made = std::make_unique<tiled_weight>();
  made->cols_ = views[0].cols;
  for (const auto& view : views) {
    weight_part part;
    part.type = view.type;
    part.first_row = made->rows_;
    part.rows = view.rows;
    part.first_tile = made->tiles_;
    part.tile_bytes = tile_bytes_of(view.type, view.cols);
    made->rows_ += view.rows;
    made->tiles_ += part.tile_count();
    made->bytes_ += part.tile_count() * part.tile_bytes;
    made->parts_.push_back(part);
  }
  return made;
}

result<std::unique_ptr<tiled_weight>>
tiled_weight::pack(std::span<const matrix_view> views, team& workers) {
  auto laid_out = lay_out(views);
  if (!laid_out)
    return laid_out.error();
  if (auto checked = check_bytes(views); !checked)
    return checked.error();
  auto made = std::move(*laid_out);
  auto memory = pages::allocate(made->bytes_);
  if (!memory)
    return error{errc::limit, "no memory for a weight of " +
                                  std::to_string(made->bytes_) + " bytes"};
  made->memory_ = std::move(*memory);
  std::byte* at = made->memory_.data();
  for (std::size_t i = 0; i < views.size(); ++i) {
    auto& part = made->parts_[i];
    part.tiles = at;
    at += part.tile_count() * part.tile_bytes;
    workers.run(part.tile_count(),
                [&](std::int64_t begin, std::int64_t end, int) {
                  for (auto tile = begin; tile < end; ++tile)
                    pack_tile(part, views[i], tile);
                });
  }
  return made;
}

const weight_part& tiled_weight::part_of_tile(std::int64_t tile) const {
  std::size_t i = parts_.size() - 1;
  while (parts_[i].first_tile > tile)
    --i;
  return parts_[i];
}

void tiled_weight::read_row(std::int64_t row, float* out) const {
  std::size_t i = parts_.size() - 1;
  while (parts_[i].first_row > row)
    --i;
  const auto& part = parts_[i];
  const auto within = row - part.first_row;
  const std::byte* tile = part.tiles + within / 16 * part.tile_bytes;
  const int lane = static_cast<int>(within % 16);
  if (quantised(part.type))
    read_blocks(part, tile, lane, cols_, out);
  else
    read_floats(part, tile, lane, cols_, out);
}

} // namespace troupe::ops::cpu
