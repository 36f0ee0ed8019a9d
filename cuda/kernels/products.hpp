#pragma once

#include "cuda/kernels/matrix_words.hpp"
#include "cuda/kernels/rows.hpp"
#include "engine/ops/tensor.hpp"

// What surrounds the products of a library: it multiplies numbers of 16 bits.

namespace troupe::cuda {

/// Rows of floats as bf16.
struct round_kernel {
  static constexpr bool collective = false;
  const float* x;
  unsigned blocks;
  std::int64_t cols;
  bf16* out;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const float* from = x + t.block_y() * cols;
    bf16* to = out + t.block_y() * cols;
    for_columns(t, blocks, cols,
                [&](std::int64_t i) { to[i] = to_bf16(from[i]); });
  }
};

/// Rows of floats as f16, each divided by a power of two that leaves its
/// greatest magnitude between 2^10 and 2^11: nothing overflows, and what is
/// 2^24 times smaller is still exact to 11 bits. A block per row.
struct scale_kernel {
  static constexpr bool collective = true;
  static constexpr std::size_t shared_floats = 128 / warp_size;
  const float* x;
  std::int64_t cols;
  f16* out;
  float* factors; ///< of the rows: what they were divided by

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const float* from = x + t.block_y() * cols;
    f16* to = out + t.block_y() * cols;
    float most = 0;
    for (std::int64_t i = t.index(); i < cols; i += t.count())
      most = fmaxf(most, fabsf(from[i]));
    most = block_max(t, most, t.shared());
    const int power = power_of(most);
    const float divided =
        float_of_bits(static_cast<std::uint32_t>(254 - power) << 23);
    for (std::int64_t i = t.index(); i < cols; i += t.count())
      to[i] = to_f16(from[i] * divided);
    if (t.index() == 0)
      factors[t.block_y()] =
          float_of_bits(static_cast<std::uint32_t>(power) << 23);
  }

  /// The factor's exponent, as a float has it, from 1 to 253: then its inverse
  /// is a float too.
  TROUPE_KERNEL static int power_of(float most) {
    const int power = static_cast<int>(bits_of(most) >> 23) - 10;
    return power < 1 ? 1 : power > 253 ? 253 : power;
  }
};

/// e4m3 as bf16, eight numbers to a thread; times the scales of its blocks,
/// rounded, if it has some.
struct widen_kernel {
  static constexpr bool collective = false;
  const e4m3* from;
  std::int64_t n; ///< a multiple of 8
  unsigned blocks;
  bf16* out;
  const float* scales; ///< null: none
  std::int64_t cols;   ///< of a row, a multiple of 8

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    for_columns(t, blocks, n / 8, [&](std::int64_t i) {
      stored_eight<e4m3> stored;
      stored.read_whole(from + i * 8);
      const matrix_words<e4m3> some{stored};
      pack<std::uint32_t, 4> words;
      TROUPE_UNROLL
      for (int w = 0; w < 4; ++w)
        words.at[w] =
            scales == nullptr ? some.high[w] : scaled(some.high[w], i * 8);
      *reinterpret_cast<pack<std::uint32_t, 4>*>(out + i * 8) = words;
    });
  }

private:
  /// Two of the eight that begin at `first`.
  TROUPE_KERNEL std::uint32_t scaled(std::uint32_t two,
                                     std::int64_t first) const {
    const float scale = scales[first / cols * ops::scales_of_cols(cols) +
                               first % cols / ops::scale_cols];
    return to_bf16_pair(float_of_bits(two << 16) * scale,
                        float_of_bits(two & 0xffff0000u) * scale);
  }
};

/// y[r][o] = sums[r][o] * factors[r] * scales[o] (+ y[r][o]), of some outputs;
/// factors or scales may be null.
struct place_sums_kernel {
  static constexpr bool collective = false;
  const float* sums; ///< [rows][some]
  const float* factors;
  const float* scales;
  unsigned blocks;
  std::int64_t some;
  std::int64_t outputs; ///< of a row of y
  float* y;             ///< where the first row's first of them lies
  bool add;

  template <class Threads>
  TROUPE_KERNEL void operator()(Threads& t) const {
    const float* from = sums + t.block_y() * some;
    float* to = y + t.block_y() * outputs;
    const float factor = factors != nullptr ? factors[t.block_y()] : 1.0f;
    for_columns(t, blocks, some, [&](std::int64_t i) {
      float value = from[i] * factor;
      if (scales != nullptr)
        value *= scales[i];
      to[i] = add ? to[i] + value : value;
    });
  }
};

} // namespace troupe::cuda
