#pragma once

#include "cuda/kernels/numbers.hpp"
#include "engine/ops/gate.hpp"

// Operations on rows of floats (engine/ops/backend.hpp says what each is). In
// all of them a block works on one row (block_y), so that a row's result
// depends on that row alone; those over single elements may share a row among
// blocks (block_x).

namespace troupe::cuda {

/// The columns that a thread takes of a row that blocks share.
template <class Threads, class F>
TROUPE_KERNEL void for_columns(Threads& t, unsigned blocks, std::int64_t cols,
                               F f) {
  const std::int64_t step = std::int64_t{blocks} * t.count();
  for (std::int64_t i = std::int64_t{t.block_x()} * t.count() + t.index();
       i < cols; i += step)
    f(i);
}

template <class Stored>
struct embed_kernel {
  static constexpr bool collective = false;
  const Stored* table;
  const std::int32_t* ids;
  unsigned blocks;
  std::int64_t cols;
  float* out;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const Stored* from = table + ids[t.block_y()] * cols;
    float* to = out + t.block_y() * cols;
    for_columns(t, blocks, cols,
                [&](std::int64_t i) { to[i] = to_float(from[i]); });
  }
};

/// Groups of columns of each row; a block per group. `add` may be null (RMS
/// norm) or the bias of a layer norm, which is about the mean.
struct norm_kernel {
  static constexpr bool collective = true;
  const float* x;
  const float* weight;
  const float* bias;
  float epsilon;
  std::int64_t stride;     ///< floats from row to row
  std::int64_t first;      ///< column of the first group
  std::int64_t cols;       ///< of a group
  float* out;              ///< laid out as x
  bf16* rounded = nullptr; ///< the same as bf16, unless it is null

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const std::int64_t at =
        t.block_y() * stride + first + std::int64_t{t.block_x()} * cols;
    const float* row = x + at;
    const float count = static_cast<float>(cols);
    float mean = 0;
    if (bias != nullptr) {
      float sum = 0;
      for (std::int64_t i = t.index(); i < cols; i += t.count())
        sum += row[i];
      mean = block_sum(t, sum, t.shared()) / count;
    }
    float squares = 0;
    for (std::int64_t i = t.index(); i < cols; i += t.count()) {
      const float d = row[i] - mean;
      squares = fmaf(d, d, squares);
    }
    const float variance = block_sum(t, squares, t.shared()) / count;
    const float factor = 1.0f / sqrtf(variance + epsilon);
    for (std::int64_t i = t.index(); i < cols; i += t.count()) {
      float y = (row[i] - mean) * factor * weight[i];
      if (bias != nullptr)
        y += bias[i];
      out[at + i] = y;
      if (rounded != nullptr)
        rounded[at + i] = to_bf16(y);
    }
  }
};

using ops::gate;

TROUPE_KERNEL float gated(gate how, float x) {
  if (how == gate::silu)
    return x / (1.0f + expf(-x));
  if (how == gate::gelu) {
    const float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1.0f + tanhf(inner));
  }
  return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
}

/// `gate_up` rows are [n | n].
struct gate_kernel {
  static constexpr bool collective = false;
  gate how;
  const float* gate_up;
  unsigned blocks;
  std::int64_t n;
  float* out;
  bf16* rounded = nullptr; ///< the same as bf16, unless it is null

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const float* row = gate_up + t.block_y() * 2 * n;
    const std::int64_t to = t.block_y() * n;
    for_columns(t, blocks, n, [&](std::int64_t i) {
      const float y = gated(how, row[i]) * row[n + i];
      out[to + i] = y;
      if (rounded != nullptr)
        rounded[to + i] = to_bf16(y);
    });
  }
};

enum class change : std::uint8_t { add, scale, soft_cap, erf_gelu, clear };

/// y of each row: += factor * x, *= factor, factor * tanh(y / factor), gelu(y),
/// 0.
struct change_kernel {
  static constexpr bool collective = false;
  change how;
  const float* x;        ///< of add
  std::int64_t x_stride; ///< 0: the same for all rows
  float factor;
  unsigned blocks;
  std::int64_t cols;
  float* y;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const float* from = x + t.block_y() * x_stride;
    float* to = y + t.block_y() * cols;
    for_columns(t, blocks, cols, [&](std::int64_t i) {
      if (how == change::add)
        to[i] = fmaf(factor, from[i], to[i]);
      else if (how == change::scale)
        to[i] *= factor;
      else if (how == change::soft_cap)
        to[i] = factor * tanhf(to[i] / factor);
      else if (how == change::clear)
        to[i] = 0;
      else
        to[i] = gated(gate::erf_gelu, to[i]);
    });
  }
};

/// out[i] = x[rows[i]].
struct gather_kernel {
  static constexpr bool collective = false;
  const float* x;
  const std::int32_t* rows;
  unsigned blocks;
  std::int64_t cols;
  float* out;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const float* from = x + rows[t.block_y()] * cols;
    float* to = out + t.block_y() * cols;
    for_columns(t, blocks, cols, [&](std::int64_t i) { to[i] = from[i]; });
  }
};

/// Tokens below 0 become those that were drawn: -1 - r is what row r of the
/// draw before drew. One block; where nothing was drawn, whatever follows is
/// thrown away.
struct place_drawn_kernel {
  static constexpr bool collective = false;
  std::int32_t* ids;
  std::int32_t rows;
  const std::int32_t* drawn;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    for (std::int32_t i = static_cast<std::int32_t>(t.index()); i < rows;
         i += static_cast<std::int32_t>(t.count()))
      if (ids[i] < 0) {
        const std::int32_t id = drawn[-1 - ids[i]];
        ids[i] = id < 0 ? 0 : id;
      }
  }
};

/// Row after row is added.
struct mean_kernel {
  static constexpr bool collective = false;
  const float* x;
  const std::int32_t* ends;
  unsigned blocks;
  std::int64_t cols;
  float* out;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const std::int64_t begin = t.block_y() > 0 ? ends[t.block_y() - 1] : 0;
    const std::int64_t end = ends[t.block_y()];
    float* to = out + t.block_y() * cols;
    for_columns(t, blocks, cols, [&](std::int64_t i) {
      float sum = x[begin * cols + i];
      for (std::int64_t r = begin + 1; r < end; ++r)
        sum += x[r * cols + i];
      to[i] = sum * (1.0f / static_cast<float>(end - begin));
    });
  }
};

/// A number of each row's bits: rows that differ have different ones but for a
/// chance of 2^-64.
struct row_sum_kernel {
  static constexpr bool collective = true;
  static constexpr std::size_t shared_floats = 2;
  const float* x;
  std::int64_t cols;
  std::uint64_t* out;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    auto* all = reinterpret_cast<std::uint64_t*>(t.shared());
    if (t.index() == 0)
      *all = 0;
    t.sync();
    const float* row = x + t.block_y() * cols;
    std::uint64_t sum = 0;
    for (std::int64_t i = t.index(); i < cols; i += t.count())
      sum += mixed(static_cast<std::uint64_t>(i) << 32 | bits_of(row[i]));
    t.add(all, sum);
    t.sync();
    if (t.index() == 0)
      out[t.block_y()] = *all;
  }

  TROUPE_KERNEL static std::uint64_t mixed(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
  }
};

} // namespace troupe::cuda
