#include "engine/ops/cpu/tiled_weight.hpp"

#include "engine/ops/cpu/bf16_tile.hpp"
#include "engine/ops/cpu/file_block.hpp"
#include "engine/ops/cpu/stored_weight.hpp"

#include <algorithm>
#include <cstring>

namespace troupe::ops::cpu {

namespace {

std::int64_t tile_bytes_of(element_type type, std::int64_t cols) {
  const auto layout = layout_of(type);
  if (type == element_type::bf16)
    return bf16_blocks(cols) * bf16_block_bytes;
  if (!quantised(type))
    return (cols * layout.bytes * tile_lanes + 63) / 64 * 64;
  const auto format = tile_format_of(type);
  const auto columns = unit_blocks(format) * block_columns;
  return (cols + columns - 1) / columns * unit_bytes(format);
}

result<void> check(std::span<const matrix_view> parts) {
  if (parts.empty())
    return error{errc::invalid_argument, "a weight has no parts"};
  for (const auto& part : parts) {
    const auto layout = layout_of(part.type);
    if (part.type == element_type::e4m3)
      return error{errc::unsupported, "weights in e4m3 are for GPUs"};
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

/// Puts a plane of a block into output `lane` of its tile, whose bytes are 0:
/// bits `from` to `from` + `bits` of what is stored.
void put_plane(const file_block& block, int from, int bits, int lane,
               std::byte* plane) {
  std::uint32_t words[8] = {};
  const std::uint32_t mask = 0x01010101u * ((1u << bits) - 1);
  for (int g = 0; g < 8; ++g)
    words[g % bits] |= (block.stored[g] >> from & mask) << bits * (g / bits);
  for (int w = 0; w < bits; ++w)
    std::memcpy(plane + w * 64 + lane * 4, &words[w], 4);
}

void put_scales(const file_block& block, tile_format format, std::int64_t b,
                int lane, std::byte* tile) {
  std::byte* scales = tile + scales_at(format, b);
  if (super_blocks(format)) {
    scales[lane] = std::byte{block.bytes[0]};
    scales[tile_lanes + lane] = std::byte{block.bytes[1]};
    scales = tile + super_scales_at(format, b);
  }
  std::memcpy(scales + lane * 2, &block.scale, 2);
  if (super_blocks(format) || format.scales == scale_form::half_minimum)
    std::memcpy(scales + 32 + lane * 2, &block.minimum, 2);
}

/// Puts one row of a quantised weight into output `lane` of its tile.
void pack_blocks(const weight_part& part, const std::byte* row,
                 std::int64_t cols, int lane, std::byte* tile) {
  const auto format = tile_format_of(part.type);
  for (std::int64_t b = 0; b < cols / block_columns; ++b) {
    const auto block = read_file_block(part.type, row, b);
    std::byte* values = tile + values_at(format, b);
    put_plane(block, 0, format.low_bits, lane, values);
    if (format.high_bits > 0)
      put_plane(block, format.low_bits, format.high_bits, lane,
                values + 64 * format.low_bits);
    put_scales(block, format, b, lane, tile);
  }
}

void pack_floats(const weight_part& part, const std::byte* row,
                 std::int64_t cols, int lane, std::byte* tile) {
  const auto size = layout_of(part.type).bytes;
  for (std::int64_t k = 0; k < cols; ++k)
    std::memcpy(tile + (k * tile_lanes + lane) * size, row + k * size, size);
}

void pack_bf16(const std::byte* row, std::int64_t cols, int lane,
               std::byte* tile) {
  for (std::int64_t k = 0; k < cols; ++k) {
    std::uint16_t bits;
    std::memcpy(&bits, row + k * 2, 2);
    if ((bits & 0x7fff) < least_bf16)
      bits = 0;
    std::memcpy(tile + bf16_at(k, lane), &bits, 2);
  }
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
    else if (view.type == element_type::bf16)
      pack_bf16(from, view.cols, lane, tile);
    else
      pack_floats(part, from, view.cols, lane, tile);
  }
}

void read_blocks(const weight_part& part, const std::byte* tile, int lane,
                 std::int64_t cols, float* out) {
  const auto format = tile_format_of(part.type);
  for (std::int64_t k = 0; k < cols; ++k) {
    const auto b = k / block_columns;
    const auto within = static_cast<int>(k % block_columns);
    const int half = within / 16;
    const auto w = scales_of(format, tile, b, lane);
    float scale = w.scale, minimum = w.minimum;
    if (super_blocks(format)) {
      scale = scale * static_cast<float>(w.scales[half]);
      minimum = minimum * static_cast<float>(w.minimums[half]);
    }
    out[k] = scale * static_cast<float>(weight_at(
                         format, tile + values_at(format, b), lane, within));
    if (format.scales == scale_form::half_minimum)
      out[k] = out[k] + minimum;
    if (format.scales == scale_form::byte_minimum ||
        format.scales == scale_form::two_nibbles)
      out[k] = out[k] - minimum;
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
    const bool brain = part.type == element_type::bf16;
    std::uint16_t bits;
    std::memcpy(&bits, tile + (brain ? bf16_at(k, lane) : at * 2), 2);
    out[k] = brain ? from_bf16(bits) : from_f16(bits);
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

tile_format tile_format_of(element_type type) {
  return tile_formats[quantised_index(type)];
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
