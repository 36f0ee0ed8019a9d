#pragma once

#include "cuda/kernels/paged_kv.hpp"

namespace troupe::cuda {

/// Floats of a head at most; each thread holds its part of the output.
inline constexpr int head_dim_max = 512;
inline constexpr int attention_threads = 128;
/// Positions that one block can do alone, and that are always summed up by
/// themselves.
inline constexpr std::int32_t part_positions = 1024;

/// Attention of a row and head over the paged store. The order of sums is
/// fixed, and depends on positions alone: spans of `attention_threads`
/// positions that begin at its multiples, in order, are a part; parts of
/// `part_positions`, in order, are the whole. So a block may do a row's whole
/// attention or one part of it, with the same bits. Within a span a thread
/// scores one position, then adds up some dimensions of the values. What was
/// summed up is kept relative to its greatest score (Milakov and Gimelshein,
/// 2018). `Kept`: the type of keys and values.
template <class Kept>
struct attention_kernel {
  static constexpr bool collective = true;
  static constexpr int span = attention_threads;
  static constexpr int dims_of_thread = head_dim_max / span;

  const float* qkv;
  std::int32_t heads;
  float scale;
  float soft_cap;      ///< 0 = none
  std::int32_t window; ///< 0 = none
  std::int32_t ahead;
  std::int32_t layer;
  rows_view rows;
  kv_view<Kept> kv;
  float* out; ///< [rows][heads * head_dim]
  /// Null: block_x is a head, and each block does all. Else block_x is a head
  /// and a part of `parts`, [rows][heads][parts][head_dim + 2] is written and
  /// `out` is not.
  float* partials = nullptr;
  std::int32_t parts = 1;

  static std::size_t shared_floats(std::int32_t head_dim) {
    return static_cast<std::size_t>(head_dim) + span + span / warp_size;
  }

  /// A sum over some positions: of weights and of weighted values.
  struct sum {
    float most = -INFINITY; ///< the greatest score of them
    float weights = 0;
    float values[dims_of_thread] = {};

    TROUPE_KERNEL void add(const sum& more) {
      const float now = most > more.most ? most : more.most;
      const float kept = most > -INFINITY ? expf(most - now) : 0.0f;
      const float taken = more.most > -INFINITY ? expf(more.most - now) : 0.0f;
      weights = weights * kept + more.weights * taken;
      for (int i = 0; i < dims_of_thread; ++i)
        values[i] = values[i] * kept + more.values[i] * taken;
      most = now;
    }
  };

  /// Where a block works, and what its row sees.
  struct place {
    std::int32_t row, head, kv_head;
    std::int32_t first, last; ///< positions
    int thread;
  };

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const auto at = place_of(t);
    const float* q =
        qkv + at.row * std::int64_t{heads + 2 * kv.kv_heads} * kv.head_dim +
        std::int64_t{at.head} * kv.head_dim;
    for (int i = at.thread; i < kv.head_dim; i += span)
      t.shared()[i] = q[i];
    t.sync();
    if (partials == nullptr)
      run_whole(t, at);
    else
      run_part(t, at, static_cast<std::int32_t>(t.block_x()) % parts);
  }

  template <class Threads>
  TROUPE_KERNEL place place_of(Threads& t) const {
    place out;
    out.row = static_cast<std::int32_t>(t.block_y());
    out.head = static_cast<std::int32_t>(t.block_x()) / parts;
    out.kv_head = out.head / (heads / kv.kv_heads);
    out.thread = static_cast<int>(t.index());
    const std::int32_t position = rows.positions[out.row];
    out.first = window > 0 && position >= window ? position - window + 1 : 0;
    const std::int32_t end = rows.last[out.row];
    out.last = ahead < end - position ? position + ahead : end;
    return out;
  }

  template <class Threads>
  TROUPE_KERNEL void run_whole(Threads& t, const place& at) const {
    sum all;
    for (std::int32_t part = at.first / part_positions;
         part <= at.last / part_positions; ++part)
      all.add(sum_of_part(t, at, part));
    float* to = out + (at.row * std::int64_t{heads} + at.head) * kv.head_dim;
    for (int i = 0; i * span + at.thread < kv.head_dim; ++i)
      to[i * span + at.thread] = all.values[i] / all.weights;
  }

  template <class Threads>
  TROUPE_KERNEL void run_part(Threads& t, const place& at,
                              std::int32_t part) const {
    const sum of = sum_of_part(t, at, part);
    float* to =
        partials + ((at.row * std::int64_t{heads} + at.head) * parts + part) *
                       (kv.head_dim + 2);
    for (int i = 0; i * span + at.thread < kv.head_dim; ++i)
      to[2 + i * span + at.thread] = of.values[i];
    if (at.thread == 0) {
      to[0] = of.most;
      to[1] = of.weights;
    }
  }

  /// Nothing, if the row sees nothing of the part.
  template <class Threads>
  TROUPE_KERNEL sum sum_of_part(Threads& t, const place& at,
                                std::int32_t part) const {
    sum out;
    const std::int32_t from = part * part_positions;
    for (std::int32_t begin = from; begin < from + part_positions;
         begin += span)
      if (begin <= at.last && begin + span > at.first)
        out.add(sum_of_span(t, at, begin));
    return out;
  }

  template <class Threads>
  TROUPE_KERNEL sum sum_of_span(Threads& t, const place& at,
                                std::int32_t begin) const {
    float* query = t.shared();
    float* weights = query + kv.head_dim;
    float* scratch = weights + span;
    const std::int32_t p = begin + at.thread;
    const bool seen = p >= at.first && p <= at.last;
    const float score = seen ? score_of(at, p, query) : -INFINITY;
    sum out;
    out.most = block_max(t, score, scratch);
    const float weight = seen ? expf(score - out.most) : 0.0f;
    weights[at.thread] = weight;
    out.weights = block_sum(t, weight, scratch); // all have written by then
    const int first = begin < at.first ? at.first - begin : 0;
    const int until = at.last - begin + 1 < span ? at.last - begin + 1 : span;
    for (int i = 0; i * span + at.thread < kv.head_dim; ++i) {
      float values = 0;
      for (int j = first; j < until; ++j)
        values = fmaf(weights[j], value_at(at, begin + j, i * span + at.thread),
                      values);
      out.values[i] = values;
    }
    t.sync(); // the weights are read
    return out;
  }

  TROUPE_KERNEL float score_of(const place& at, std::int32_t position,
                               const float* query) const {
    const Kept* key =
        kv.keys(layer, rows.block_of(at.row, position, kv.block_tokens),
                at.kv_head) +
        std::int64_t{position % kv.block_tokens} * kv.head_dim;
    constexpr int at_once = 8;
    float sum = 0;
    std::int32_t i = 0;
    if (kv.head_dim % at_once == 0) // then keys begin at multiples of 8 numbers
      for (; i < kv.head_dim; i += at_once) {
        float some[at_once];
        read_floats<at_once>(key + i, some);
        for (int j = 0; j < at_once; ++j)
          sum = fmaf(query[i + j], some[j], sum);
      }
    for (; i < kv.head_dim; ++i)
      sum = fmaf(query[i], to_float(key[i]), sum);
    sum *= scale;
    return soft_cap > 0 ? soft_cap * tanhf(sum / soft_cap) : sum;
  }

  TROUPE_KERNEL float value_at(const place& at, std::int32_t position,
                               int dim) const {
    const Kept* value =
        kv.values(layer, rows.block_of(at.row, position, kv.block_tokens),
                  at.kv_head) +
        std::int64_t{position % kv.block_tokens} * kv.head_dim;
    return to_float(value[dim]);
  }
};

/// Adds up the parts of each row and head, in order (block_y, block_x).
struct merge_parts_kernel {
  static constexpr bool collective = false;
  const float* partials; ///< as attention_kernel writes it
  std::int32_t heads;
  std::int32_t parts;
  std::int32_t head_dim;
  float* out;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    using sum = attention_kernel<f16>::sum;
    const std::int64_t at = t.block_y() * std::int64_t{heads} + t.block_x();
    const float* from = partials + at * parts * (head_dim + 2);
    const int thread = static_cast<int>(t.index());
    sum all;
    for (std::int32_t part = 0; part < parts; ++part, from += head_dim + 2) {
      sum one;
      one.most = from[0];
      one.weights = from[1];
      for (int i = 0; i * attention_threads + thread < head_dim; ++i)
        one.values[i] = from[2 + i * attention_threads + thread];
      all.add(one);
    }
    for (int i = 0; i * attention_threads + thread < head_dim; ++i)
      out[at * head_dim + i * attention_threads + thread] =
          all.values[i] / all.weights;
  }
};

} // namespace troupe::cuda
