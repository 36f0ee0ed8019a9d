#include "engine/ops/dense_layout.hpp"

#include <algorithm>

namespace troupe::ops {

element_type dense_type(std::span<const matrix_view> parts) {
  const auto first = parts.empty() ? element_type::bf16 : parts.front().type;
  const auto same = std::all_of(parts.begin(), parts.end(),
                                [&](auto& part) { return part.type == first; });
  return same && !quantised(first) ? first : element_type::bf16;
}

std::int64_t dense_bytes(std::span<const matrix_view> parts) {
  std::int64_t elements = 0;
  for (const auto& part : parts)
    elements += part.rows * part.cols;
  return elements * layout_of(dense_type(parts)).bytes;
}

std::int64_t dense_kv_bytes(const kv_shape& shape) {
  constexpr std::int64_t number = 2; // bytes
  return std::int64_t{shape.layers} * shape.blocks * shape.kv_heads * 2 *
         shape.block_tokens * shape.head_dim * number;
}

} // namespace troupe::ops
