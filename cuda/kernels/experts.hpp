#pragma once

#include "cuda/kernels/linear.hpp"
#include "cuda/kernels/rows.hpp"
#include "engine/ops/expert_choice.hpp"

// A layer's mixture of experts (ops::backend::mix_experts), without the host.
// A pair is a row with one of its experts: pair p is of row p / chosen, the
// best expert first. Kernels run over launches of a fixed size, whatever was
// chosen.

namespace troupe::cuda {

/// Pairs of one expert that are multiplied at once: `count` of them, from
/// `order[first]` on. None: there is nothing to do.
struct expert_chunk {
  std::int32_t expert;
  std::int32_t first;
  std::int32_t count;
};

/// Chooses a row's experts, and says what each contributes. A warp per row
/// (block_y); lane l has experts l, l + 32, and so on.
struct route_kernel {
  static constexpr bool collective = true;
  static constexpr std::int32_t experts_max = 32 * 32; ///< a bit in each lane
  const float* scores;                                 ///< [rows][experts]
  std::int32_t experts;
  std::int32_t chosen;
  bool normalise;
  std::int32_t* choices; ///< [rows][chosen]
  float* shares;         ///< [rows][chosen]

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const float* of = scores + std::int64_t{t.block_y()} * experts;
    const std::int64_t to = std::int64_t{t.block_y()} * chosen;
    std::uint32_t taken = 0;
    float most = 0, all = 0, sum = 0;
    for (std::int32_t k = 0; k < chosen; ++k) {
      const candidate own = best_of_lane(t, of, taken);
      const float top = t.warp_max(own.score);
      if (k == 0) {
        most = top;
        all = t.warp_sum(weights_of_lane(t, of, most));
      }
      // Of equal ones the first: whole numbers up to 2^24 are exact.
      const bool is_tied = own.expert < experts && own.score == top;
      const float first =
          -t.warp_max(-static_cast<float>(is_tied ? own.expert : experts_max));
      const auto expert = static_cast<std::int32_t>(first);
      if (expert == own.expert)
        taken |= 1u << expert / static_cast<std::int32_t>(warp_size);
      const float share = expf(top - most) / all;
      sum += share;
      if (t.index() != 0)
        continue;
      choices[to + k] = expert;
      shares[to + k] = share;
    }
    for (std::int32_t k = 0; normalise && t.index() == 0 && k < chosen; ++k)
      shares[to + k] /= sum;
  }

private:
  struct candidate {
    float score;
    std::int32_t expert; ///< experts_max: there is none
  };

  template <class Threads>
  TROUPE_KERNEL candidate best_of_lane(Threads& t, const float* of,
                                       std::uint32_t taken) const {
    candidate best{ops::counted_score(-INFINITY), experts_max};
    std::uint32_t bit = 1;
    for (auto e = static_cast<std::int32_t>(t.index()); e < experts;
         e += static_cast<std::int32_t>(warp_size), bit <<= 1) {
      const float score = ops::counted_score(of[e]);
      if ((taken & bit) == 0 &&
          (best.expert == experts_max || score > best.score))
        best = {score, e};
    }
    return best;
  }

  template <class Threads>
  TROUPE_KERNEL float weights_of_lane(Threads& t, const float* of,
                                      float most) const {
    float sum = 0;
    for (auto e = static_cast<std::int32_t>(t.index()); e < experts;
         e += static_cast<std::int32_t>(warp_size))
      sum += expf(of[e] - most);
    return sum;
  }
};

/// Sorts pairs by expert, in ascending order within one, and divides those of
/// each into chunks; chunks that are not needed are empty. One block: thread t
/// looks for expert t % experts in a segment of the pairs.
struct place_kernel {
  static constexpr bool collective = true;
  static constexpr std::int32_t threads_max = 1024;
  static constexpr std::int32_t segments_max = 8;
  const std::int32_t* choices; ///< of pairs
  std::int32_t pairs;
  std::int32_t experts;
  std::int32_t segments;
  std::int32_t chunk_pairs; ///< of a chunk that is full
  std::int32_t chunks_most;
  std::int32_t* order;  ///< [pairs]
  expert_chunk* chunks; ///< [chunks_most]

  static std::int32_t segments_for(std::int32_t experts) {
    const auto most = threads_max / experts;
    return most < segments_max ? most : segments_max;
  }

  static std::size_t shared_floats(std::int32_t experts) {
    return static_cast<std::size_t>(experts * (segments_for(experts) + 1));
  }

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    auto* counts = reinterpret_cast<std::int32_t*>(t.shared());
    std::int32_t* totals = counts + segments * experts;
    const auto thread = static_cast<std::int32_t>(t.index());
    const std::int32_t expert = thread % experts, segment = thread / experts;
    const bool works = segment < segments;
    const std::int32_t length = (pairs + segments - 1) / segments;
    const std::int32_t begin = segment * length;
    const std::int32_t end = begin + length < pairs ? begin + length : pairs;
    if (works) {
      std::int32_t count = 0;
      for (std::int32_t p = begin; p < end; ++p)
        count += choices[p] == expert ? 1 : 0;
      counts[thread] = count;
    }
    t.sync();
    if (segment == 0) {
      std::int32_t total = 0;
      for (std::int32_t s = 0; s < segments; ++s)
        total += counts[s * experts + expert];
      totals[expert] = total;
    }
    t.sync();
    std::int32_t place = 0, chunk = 0, all = 0;
    for (std::int32_t e = 0; e < experts; ++e) {
      if (e == expert)
        chunk = all;
      place += e < expert ? totals[e] : 0;
      all += (totals[e] + chunk_pairs - 1) / chunk_pairs;
    }
    for (std::int32_t c = all + thread; c < chunks_most;
         c += static_cast<std::int32_t>(t.count()))
      chunks[c] = {0, 0, 0};
    if (segment == 0)
      divide(place, totals[expert], expert, chunks + chunk);
    if (!works)
      return;
    for (std::int32_t s = 0; s < segment; ++s)
      place += counts[s * experts + expert];
    for (std::int32_t p = begin; p < end; ++p)
      if (choices[p] == expert)
        order[place++] = p;
  }

private:
  TROUPE_KERNEL void divide(std::int32_t first, std::int32_t count,
                            std::int32_t expert, expert_chunk* to) const {
    for (; count > 0; count -= chunk_pairs, first += chunk_pairs)
      *to++ = {expert, first, count < chunk_pairs ? count : chunk_pairs};
  }
};

/// A matrix of all experts, one behind the other.
struct expert_stack {
  const std::byte* first;
  std::int64_t stride;    ///< bytes from one expert to the next
  std::int64_t scales_at; ///< of e4m3: within an expert, in bytes; else 0
};

/// What a block has of an expert's pairs: few, or more.
template <class Stored>
using few_pairs_product = tile_product<Stored, 1, most_output_tiles<Stored, 1>>;
template <class Stored>
using many_pairs_product =
    tile_product<Stored, 4, most_output_tiles<Stored, 4>>;

/// Products of pairs with their experts' matrices, in the order of
/// linear_kernel, for some outputs (block_x) of a chunk (block_y). Gated: the
/// matrices have `outputs` rows of gates, then as many that they multiply, and
/// y = silu(gate) * up. Full chunks have as many pairs as the product rows.
template <class Product, bool Gated>
struct expert_kernel {
  static constexpr bool collective = true;
  static constexpr unsigned threads = column_warps * warp_size;
  static constexpr unsigned blocks_at_once = Product::blocks_at_once;
  using stored = typename Product::stored;
  /// Half of a gated one's tiles have the other half.
  static constexpr int outputs_at_once =
      Gated ? Product::outputs / 2 : Product::outputs;

  expert_stack weights;
  const expert_chunk* chunks;
  const std::int32_t* order;
  const float* x;
  std::int32_t pairs_of_x; ///< pairs to which a row of x belongs
  std::int64_t outputs;
  std::int64_t cols;
  float* y; ///< [pairs][outputs]

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const expert_chunk chunk = chunks[t.block_y()];
    if (chunk.count == 0)
      return;
    const std::int32_t* pairs = order + chunk.first;
    const std::byte* first = weights.first + chunk.expert * weights.stride;
    const auto* matrix = reinterpret_cast<const stored*>(first);
    const auto* scales =
        weights.scales_at == 0
            ? nullptr
            : reinterpret_cast<const float*>(first + weights.scales_at);
    const std::int64_t output = std::int64_t{t.block_x()} * outputs_at_once;
    const block_outputs own{output, outputs_at_once, outputs};
    Product all;
    all.add_up(
        t, chunk.count, cols,
        [&](int o) { return matrix + own.row_of(o) * cols; },
        [&](int r) {
          return x + pairs[r < chunk.count ? r : 0] / pairs_of_x * cols;
        },
        [&](int o) {
          return scales + own.row_of(o) * ops::scales_of_cols(cols);
        },
        row_norm{}, [] {});
    all.show(t, {});
    for (int i = static_cast<int>(t.index()); i < chunk.count * outputs_at_once;
         i += static_cast<int>(t.count())) {
      const int r = i / outputs_at_once, o = i % outputs_at_once;
      if (output + o >= outputs)
        continue;
      const auto sum_of = [&](int half) {
        return scaled_sum_of<Product>(t, r, half * outputs_at_once + o, scales,
                                      half * outputs + output + o);
      };
      y[pairs[r] * outputs + output + o] =
          Gated ? gated(gate::silu, sum_of(0)) * sum_of(1) : sum_of(0);
    }
  }
};

/// y of each row += what its experts give, the best first.
struct combine_kernel {
  static constexpr bool collective = false;
  const float* given;  ///< [pairs][cols]
  const float* shares; ///< of pairs
  std::int32_t chosen;
  unsigned blocks;
  std::int64_t cols;
  float* y;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const std::int64_t pair = std::int64_t{t.block_y()} * chosen;
    const float* from = given + pair * cols;
    float* to = y + t.block_y() * cols;
    for_columns(t, blocks, cols, [&](std::int64_t i) {
      float sum = to[i];
      for (std::int32_t k = 0; k < chosen; ++k)
        sum = fmaf(shares[pair + k], from[k * cols + i], sum);
      to[i] = sum;
    });
  }
};

} // namespace troupe::cuda
