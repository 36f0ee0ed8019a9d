#pragma once

#include "cuda/kernels/numbers.hpp"

namespace troupe::cuda {

/// Where keys and values lie, as f16 or e4m3, values as finite numbers: per
/// layer, block and kv head the keys [position][head_dim], then the values
/// likewise.
template <class Kept>
struct kv_view {
  Kept* memory;
  std::int32_t blocks;
  std::int32_t kv_heads;
  std::int32_t block_tokens;
  std::int32_t head_dim;

  TROUPE_KERNEL Kept* keys(std::int32_t layer, std::int32_t block,
                           std::int32_t head) const {
    const std::int64_t at =
        (std::int64_t{layer} * blocks + block) * kv_heads + head;
    return memory + at * 2 * block_tokens * head_dim;
  }
  TROUPE_KERNEL Kept* values(std::int32_t layer, std::int32_t block,
                             std::int32_t head) const {
    return keys(layer, block, head) + std::int64_t{block_tokens} * head_dim;
  }
};

/// The rows of a step (ops::batch_view) in the device's memory.
struct rows_view {
  const std::int32_t* positions;
  const std::int32_t* sequences;
  const std::int32_t* tables;       ///< all tables, one after the other
  const std::int32_t* table_begins; ///< of each sequence, in `tables`
  const std::int32_t* last; ///< of each row: its sequence's last position

  TROUPE_KERNEL std::int32_t block_of(std::int32_t row, std::int32_t position,
                                      std::int32_t block_tokens) const {
    return tables[table_begins[sequences[row]] + position / block_tokens];
  }
};

/// Turns q and k of a row in place and stores k and v. A block per row.
template <class Kept>
struct rope_kernel {
  static constexpr bool collective = true;
  float* qkv;         ///< [heads * d | kv_heads * d | kv_heads * d]
  const float* turns; ///< by position: (cosine, sine) of each pair
  std::int32_t heads;
  std::int32_t pairs;
  bool interleaved;
  std::int32_t layer;
  rows_view rows;
  kv_view<Kept> kv;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const std::int32_t row = static_cast<std::int32_t>(t.block_y());
    const std::int32_t d = kv.head_dim;
    const std::int64_t stride = std::int64_t{heads + 2 * kv.kv_heads} * d;
    float* at = qkv + row * stride;
    const std::int32_t position = rows.positions[row];
    const float* turn = turns + std::int64_t{position} * pairs * 2;
    for (std::int32_t i = static_cast<std::int32_t>(t.index());
         i < (heads + kv.kv_heads) * pairs;
         i += static_cast<std::int32_t>(t.count()))
      turn_pair(at + i / pairs * d, turn, i % pairs);
    t.sync();
    const std::int32_t block = rows.block_of(row, position, kv.block_tokens);
    const std::int32_t within = position % kv.block_tokens;
    const float* k = at + heads * d;
    const float* v = k + kv.kv_heads * d;
    for (std::int32_t i = static_cast<std::int32_t>(t.index());
         i < kv.kv_heads * d; i += static_cast<std::int32_t>(t.count())) {
      const std::int64_t to = std::int64_t{within} * d + i % d;
      store(k[i], kv.keys(layer, block, i / d)[to]);
      store(finite(v[i]), kv.values(layer, block, i / d)[to]);
    }
  }

  TROUPE_KERNEL void turn_pair(float* head, const float* turn,
                               std::int32_t i) const {
    float& first = interleaved ? head[2 * i] : head[i];
    float& second = interleaved ? head[2 * i + 1] : head[i + pairs];
    const float cosine = turn[2 * i], sine = turn[2 * i + 1];
    const float a = first, b = second;
    first = a * cosine - b * sine;
    second = a * sine + b * cosine;
  }
};

} // namespace troupe::cuda
