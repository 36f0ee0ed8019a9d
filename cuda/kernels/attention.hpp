#pragma once

#include "cuda/kernels/paged_kv.hpp"

namespace troupe::cuda {

/// Floats of a head at most; each thread holds its part of the output.
inline constexpr int head_dim_max = 512;
inline constexpr int attention_threads = 128;

/// Attention of one row and head (block_y, block_x) over the paged store, in
/// spans of `attention_threads` positions that begin at its multiples: a thread
/// scores one position, then adds up some dimensions of the values. The softmax
/// goes along with the spans (Milakov and Gimelshein, 2018), always in their
/// order, so a row's bits depend on that row alone.
struct attention_kernel {
  static constexpr bool collective = true;
  const float* qkv;
  std::int32_t heads;
  float scale;
  float soft_cap;      ///< 0 = none
  std::int32_t window; ///< 0 = none
  std::int32_t ahead;
  std::int32_t layer;
  rows_view rows;
  kv_view kv;
  float* out; ///< [rows][heads * head_dim]

  static std::size_t shared_floats(std::int32_t head_dim) {
    return static_cast<std::size_t>(head_dim) + attention_threads +
           attention_threads / warp_size;
  }

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    constexpr int span = attention_threads;
    const std::int32_t row = static_cast<std::int32_t>(t.block_y());
    const std::int32_t head = static_cast<std::int32_t>(t.block_x());
    const std::int32_t kv_head = head / (heads / kv.kv_heads);
    const std::int32_t d = kv.head_dim;
    const int thread = static_cast<int>(t.index());
    float* query = t.shared();
    float* weights = query + d;
    float* scratch = weights + span;
    const float* q = qkv + row * std::int64_t{heads + 2 * kv.kv_heads} * d +
                     std::int64_t{head} * d;
    for (int i = thread; i < d; i += span)
      query[i] = q[i];
    t.sync();
    const std::int32_t position = rows.positions[row];
    const std::int32_t first =
        window > 0 && position >= window ? position - window + 1 : 0;
    const std::int32_t end = rows.last[row];
    const std::int32_t last = ahead < end - position ? position + ahead : end;
    float sums[head_dim_max / span] = {};
    float most = -INFINITY, total = 0;
    for (std::int32_t begin = first / span * span; begin <= last;
         begin += span) {
      const std::int32_t p = begin + thread;
      const bool seen = p >= first && p <= last;
      const float score = seen ? score_of(row, kv_head, p, query) : -INFINITY;
      const float higher = block_max(t, score, scratch);
      const float now = higher > most ? higher : most;
      const float kept = most > -INFINITY ? expf(most - now) : 0.0f;
      const float weight = seen ? expf(score - now) : 0.0f;
      total = total * kept + block_sum(t, weight, scratch);
      most = now;
      weights[thread] = weight;
      t.sync();
      const std::int32_t until =
          last - begin + 1 < span ? last - begin + 1 : span;
      for (int i = 0; i * span + thread < d; ++i) {
        float sum = sums[i] * kept;
        for (std::int32_t j = begin < first ? first - begin : 0; j < until; ++j)
          sum = fmaf(weights[j],
                     value_at(row, kv_head, begin + j, i * span + thread), sum);
        sums[i] = sum;
      }
      t.sync(); // the weights are read
    }
    float* to = out + (row * std::int64_t{heads} + head) * d;
    for (int i = 0; i * span + thread < d; ++i)
      to[i * span + thread] = sums[i] / total;
  }

  TROUPE_KERNEL float score_of(std::int32_t row, std::int32_t kv_head,
                               std::int32_t position,
                               const float* query) const {
    const f16* key =
        kv.keys(layer, rows.block_of(row, position, kv.block_tokens), kv_head) +
        std::int64_t{position % kv.block_tokens} * kv.head_dim;
    float sum = 0;
    for (std::int32_t i = 0; i < kv.head_dim; ++i)
      sum = fmaf(query[i], to_float(key[i]), sum);
    sum *= scale;
    return soft_cap > 0 ? soft_cap * tanhf(sum / soft_cap) : sum;
  }

  TROUPE_KERNEL float value_at(std::int32_t row, std::int32_t kv_head,
                               std::int32_t position, int dim) const {
    const f16* value =
        kv.values(layer, rows.block_of(row, position, kv.block_tokens),
                  kv_head) +
        std::int64_t{position % kv.block_tokens} * kv.head_dim;
    return to_float(value[dim]);
  }
};

} // namespace troupe::cuda
