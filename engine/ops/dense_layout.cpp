#include "engine/ops/dense_layout.hpp"

#include "engine/ops/draw.hpp"

#include <algorithm>

namespace troupe::ops {

element_type dense_type(std::span<const matrix_view> parts) {
  const auto first = parts.empty() ? element_type::bf16 : parts.front().type;
  const auto same = std::all_of(parts.begin(), parts.end(),
                                [&](auto& part) { return part.type == first; });
  const auto is_float = !quantised(first) && first != element_type::e4m3;
  return same && is_float ? first : element_type::bf16;
}

bool kept_as_e4m3(std::span<const matrix_view> parts) {
  return !parts.empty() &&
         std::all_of(parts.begin(), parts.end(), [](const auto& part) {
           return part.as_e4m3 || part.type == element_type::e4m3;
         });
}

std::optional<library_kind>
library_kind_of(std::span<const matrix_view> parts) {
  if (kept_as_e4m3(parts))
    return row_scales_of(parts) > 1 ? library_kind::block_e4m3
                                    : library_kind::e4m3;
  switch (dense_type(parts)) {
  case element_type::bf16:
    return library_kind::bf16;
  case element_type::f16:
    return library_kind::f16;
  default:
    return std::nullopt;
  }
}

std::int64_t row_scales_of(std::span<const matrix_view> parts) {
  std::int64_t out = 1;
  for (const auto& part : parts)
    out = std::max(out, part.row_scales);
  return out;
}

std::int64_t e4m3_scales_at(std::int64_t rows, std::int64_t cols) {
  constexpr std::int64_t start = 16; // bytes
  return (rows * cols + start - 1) / start * start;
}

std::int64_t dense_bytes(std::span<const matrix_view> parts) {
  std::int64_t elements = 0, rows = 0;
  for (const auto& part : parts) {
    elements += part.rows * part.cols;
    rows += part.rows;
  }
  if (kept_as_e4m3(parts))
    return e4m3_scales_at(rows, parts.front().cols) +
           rows * row_scales_of(parts) * std::int64_t{sizeof(float)};
  return elements * layout_of(dense_type(parts)).bytes;
}

std::int64_t dense_expert_bytes(std::span<const matrix_view> parts) {
  constexpr std::int64_t start = 16; // bytes: each begins as a weight does
  return (dense_bytes(parts) + start - 1) / start * start;
}

std::int64_t dense_kv_bytes(const kv_shape& shape, kv_type type) {
  const std::int64_t number = type == kv_type::e4m3 ? 1 : 2; // bytes
  return std::int64_t{shape.layers} * shape.blocks * shape.kv_heads * 2 *
         shape.block_tokens * shape.head_dim * number;
}

gpu_draw_layout::gpu_draw_layout(std::int64_t row_count, std::int64_t cols) {
  constexpr std::size_t number = 4; // bytes
  const auto count = static_cast<std::size_t>(row_count);
  rows = count * sizeof(draw_row);
  changes = draw_plan::changes_max * sizeof(logit_change);
  raw = draw_plan::changes_max * number;
  masks = count * static_cast<std::size_t>((cols + 31) / 32) * number;
  notes = count * note_bytes;
  run_sums =
      count * static_cast<std::size_t>((cols + run - 1) / run) * sizeof(double);
  drawn = count * 2 * number; // id and log-probability
  best = drawn * draw_row::best_max;
}

std::int64_t gpu_mixture_layout::rows_at_once(const mixture_params& how,
                                              std::int64_t rows) {
  return std::min(rows, std::max<std::int64_t>(pairs_most / how.chosen, 1));
}

std::int64_t gpu_mixture_layout::chunk_pairs(const mixture_params& how,
                                             std::int64_t rows) {
  // As many as half fill a chunk of many, if experts have alike.
  return rows * how.chosen >= how.experts * (many_pairs / 2) ? many_pairs
                                                             : few_pairs;
}

std::int64_t gpu_mixture_layout::chunks_most(const mixture_params& how,
                                             std::int64_t rows,
                                             std::int64_t chunk_pairs) {
  // Each expert that is chosen has one chunk that is not full.
  const auto pairs = rows * how.chosen;
  const auto chosen = std::min<std::int64_t>(pairs, how.experts);
  return (pairs + chosen * (chunk_pairs - 1)) / chunk_pairs;
}

gpu_mixture_layout::gpu_mixture_layout(const mixture_params& how,
                                       std::int64_t rows) {
  constexpr std::size_t number = 4; // bytes
  const auto some = rows_at_once(how, rows);
  const auto pairs = static_cast<std::size_t>(some * how.chosen);
  choices = shares = order = pairs * number;
  // Of fewer rows too, whose chunks are smaller.
  chunks =
      static_cast<std::size_t>(chunks_most(how, some, few_pairs) * chunk_bytes);
  activated = pairs * static_cast<std::size_t>(how.inner) * number;
  given = pairs * static_cast<std::size_t>(how.cols) * number;
}

std::size_t gpu_step_layout::list_bytes(const step_bounds& bounds) {
  return static_cast<std::size_t>(bounds.rows) * sizeof(std::int32_t);
}

std::size_t gpu_step_layout::rows_bytes(const step_bounds& bounds) {
  const auto numbers =
      7 * bounds.rows + bounds.sequences + bounds.table_entries;
  return static_cast<std::size_t>(numbers) * sizeof(std::int32_t);
}

std::int64_t gpu_step_layout::turned_positions(std::int64_t positions) {
  constexpr std::int64_t step = 256;
  return (positions + step - 1) / step * step;
}

std::size_t gpu_step_layout::turns_bytes(const rope_params& rope,
                                         std::int64_t positions) {
  return static_cast<std::size_t>(turned_positions(positions)) *
         static_cast<std::size_t>(rope.dims / 2) * 2 * sizeof(float);
}

std::int64_t gpu_product_layout::outputs_at_once(std::int64_t outputs) {
  constexpr std::int64_t most = 2048, step = 8; // rows begin at 16 bytes
  const auto pieces = std::max<std::int64_t>(1, (outputs + most - 1) / most);
  const auto each = (outputs + pieces - 1) / pieces;
  return (each + step - 1) / step * step;
}

void gpu_product_layout::add(library_kind kind, std::int64_t outputs,
                             std::int64_t cols) {
  widest_ = std::max(widest_, cols);
  if (kind == library_kind::bf16)
    return;
  const auto some = outputs_at_once(outputs);
  sums_ = std::max(sums_, some);
  if (kind == library_kind::f16)
    has_factors_ = true;
  else
    widened_ = std::max(widened_, some * cols);
}

namespace {

constexpr std::size_t half = 2; // bytes

std::size_t count_of(std::int64_t numbers) {
  return static_cast<std::size_t>(numbers);
}

} // namespace

std::size_t gpu_product_layout::rounded_bytes(std::int64_t rows) const {
  return count_of(rows * widest_) * half;
}

std::size_t gpu_product_layout::factor_bytes(std::int64_t rows) const {
  return has_factors_ ? count_of(rows) * sizeof(float) : 0;
}

std::size_t gpu_product_layout::widened_bytes() const {
  return count_of(widened_) * half;
}

std::size_t gpu_product_layout::sum_bytes(std::int64_t rows) const {
  return count_of(rows * sums_) * sizeof(float);
}

std::size_t gpu_product_layout::bytes(std::int64_t rows) const {
  return rounded_bytes(rows) + factor_bytes(rows) + widened_bytes() +
         sum_bytes(rows);
}

std::int64_t gpu_rank_layout::piece(std::int32_t ranks, std::int64_t floats) {
  constexpr std::int64_t number = 4; // bytes
  return std::min(floats, most / number / ranks);
}

std::size_t gpu_rank_layout::bytes(std::int32_t ranks, std::int64_t floats) {
  return static_cast<std::size_t>(piece(ranks, floats) * ranks) * sizeof(float);
}

std::size_t gpu_step_layout::bytes(const step_bounds& bounds,
                                   const gpu_product_layout& products) {
  auto out = lists * list_bytes(bounds) + rows_bytes(bounds) +
             products.bytes(bounds.rows);
  for (const auto& rope : bounds.ropes)
    out += turns_bytes(rope, bounds.positions);
  if (bounds.mixture.experts > 0)
    out += gpu_mixture_layout{bounds.mixture, bounds.rows}.bytes();
  if (bounds.drawn_rows > 0)
    out += gpu_draw_layout{bounds.drawn_rows, bounds.logits}.bytes();
  return out;
}

} // namespace troupe::ops
