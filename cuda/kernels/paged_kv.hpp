#pragma once

#include "cuda/kernels/heads.hpp"

namespace troupe::cuda {

/// Where a layer's keys and values lie, as f16 or e4m3, values as finite
/// numbers: per block and kv head the keys [position][head_dim], then the
/// values likewise.
template <class Kept>
struct kv_view {
  Kept* memory;
  std::int32_t kv_heads;
  std::int32_t block_tokens;
  std::int32_t head_dim;

  TROUPE_KERNEL Kept* keys(std::int32_t block, std::int32_t head) const {
    const std::int64_t at = std::int64_t{block} * kv_heads + head;
    return memory + at * 2 * block_tokens * head_dim;
  }
  TROUPE_KERNEL Kept* values(std::int32_t block, std::int32_t head) const {
    return keys(block, head) + std::int64_t{block_tokens} * head_dim;
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

/// Stores k, turned, and v of a head at its row's position, by a warp. Both
/// have kv.head_dim numbers; turned_k(i, number) is told those of k.
template <class Threads, class Kept, class TurnedK>
TROUPE_KERNEL void keep_head(Threads& t, const head_turns& how, const float* k,
                             const float* v, std::int32_t row,
                             std::int32_t head, const rows_view& rows,
                             const kv_view<Kept>& kv, TurnedK turned_k) {
  const std::int32_t d = kv.head_dim;
  const std::int32_t position = rows.positions[row];
  const std::int32_t block = rows.block_of(row, position, kv.block_tokens);
  const std::int64_t within = std::int64_t{position % kv.block_tokens} * d;
  Kept* keys = kv.keys(block, head) + within;
  Kept* values = kv.values(block, head) + within;
  turn_head(t, how, how.k_norm, position, k, d, [&](std::int32_t i, float x) {
    store(x, keys[i]);
    turned_k(i, x);
  });
  for (auto i = static_cast<std::int32_t>(t.index() % warp_size); i < d;
       i += static_cast<std::int32_t>(warp_size))
    store(finite(v[i]), values[i]);
}

/// Norms and turns q and k of a row in place and stores k and v. A block per
/// row, a warp per head.
template <class Kept>
struct rope_kernel {
  static constexpr bool collective = true;
  float* qkv; ///< [heads * d | kv_heads * d | kv_heads * d]
  head_turns how;
  std::int32_t heads;
  rows_view rows;
  kv_view<Kept> kv;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const auto row = static_cast<std::int32_t>(t.block_y());
    const std::int32_t d = kv.head_dim;
    float* at = qkv + row * (std::int64_t{heads} + 2 * kv.kv_heads) * d;
    for (auto head = static_cast<std::int32_t>(t.index() / warp_size);
         head < heads + kv.kv_heads;
         head += static_cast<std::int32_t>(warps_of(t))) {
      float* of = at + std::int64_t{head} * d;
      const auto turned = [&](std::int32_t i, float x) { of[i] = x; };
      if (head < heads)
        turn_head(t, how, how.q_norm, rows.positions[row], of, d, turned);
      else
        keep_head(t, how, of, of + std::int64_t{kv.kv_heads} * d, row,
                  head - heads, rows, kv, turned);
    }
  }
};

} // namespace troupe::cuda
