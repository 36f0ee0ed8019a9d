#pragma once

#include "cuda/kernels/numbers.hpp"

namespace troupe::cuda {

/// Eight numbers of a row as bf16, two to a word, for `multiply_add`. Numbers
/// of more bits are a sum of two: `high` is the number rounded, `low` what that
/// lacks, rounded.
template <class Stored>
struct matrix_words {
  static constexpr bool is_split = true;
  std::uint32_t high[4], low[4];

  /// Columns k to k + 7 of `row`, which has `cols`; beyond them, and where
  /// there is no row, all is 0.
  TROUPE_KERNEL void read(const Stored* row, std::int64_t k,
                          std::int64_t cols) {
    float some[8];
    read_columns(row, k, cols, some);
    TROUPE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float a = some[2 * i], b = some[2 * i + 1];
      high[i] = to_bf16_pair(a, b);
      low[i] = to_bf16_pair(a - float_of_bits(high[i] << 16),
                            b - float_of_bits(high[i] & 0xffff0000u));
    }
  }

  /// Eight columns as floats.
  TROUPE_KERNEL static void read_columns(const Stored* row, std::int64_t k,
                                         std::int64_t cols, float* to) {
    if (row != nullptr && cols % 8 == 0 && k < cols) {
      read_floats<8>(row + k, to); // rows begin at multiples of 16 bytes
      return;
    }
    TROUPE_UNROLL
    for (int i = 0; i < 8; ++i)
      to[i] = row != nullptr && k + i < cols ? to_float(row[k + i]) : 0.0f;
  }
};

template <>
struct matrix_words<bf16> {
  static constexpr bool is_split = false;
  std::uint32_t high[4];

  TROUPE_KERNEL void read(const bf16* row, std::int64_t k, std::int64_t cols) {
    if (row != nullptr && cols % 8 == 0 && k < cols) {
      const auto some =
          *reinterpret_cast<const pack<std::uint32_t, 4>*>(row + k);
      TROUPE_UNROLL
      for (int i = 0; i < 4; ++i)
        high[i] = some.at[i];
      return;
    }
    TROUPE_UNROLL
    for (int i = 0; i < 4; ++i)
      high[i] = at(row, k + 2 * i, cols) | at(row, k + 2 * i + 1, cols) << 16;
  }

  TROUPE_KERNEL static std::uint32_t at(const bf16* row, std::int64_t k,
                                        std::int64_t cols) {
    return row != nullptr && k < cols ? row[k].bits : 0;
  }
};

/// Of finite numbers, which all are bf16, too.
template <>
struct matrix_words<e4m3> {
  static constexpr bool is_split = false;
  std::uint32_t high[4];

  TROUPE_KERNEL void read(const e4m3* row, std::int64_t k, std::int64_t cols) {
    std::uint32_t some[2] = {};
    if (row != nullptr && cols % 8 == 0 && k < cols) {
      const auto both =
          *reinterpret_cast<const pack<std::uint32_t, 2>*>(row + k);
      some[0] = both.at[0];
      some[1] = both.at[1];
    } else if (row != nullptr) {
      TROUPE_UNROLL
      for (int i = 0; i < 8 && k + i < cols; ++i)
        some[i / 4] |= std::uint32_t{row[k + i].bits} << i % 4 * 8;
    }
    TROUPE_UNROLL
    for (int i = 0; i < 4; ++i)
      high[i] = widened(some[i / 2] >> i % 2 * 16);
  }

  /// The lower two bytes as bf16.
  TROUPE_KERNEL static std::uint32_t widened(std::uint32_t bytes) {
    const std::uint32_t apart = (bytes & 0xffu) | (bytes & 0xff00u) << 8;
    // As bf16 with an exponent that is 120 too small.
    const std::uint32_t small =
        (apart & 0x00800080u) << 8 | (apart & 0x007f007fu) << 4;
#ifdef __CUDA_ARCH__
    constexpr std::uint32_t factors = 0x7b807b80u; // 2^120, twice
    constexpr std::uint32_t nothing = 0x80008000u; // -0, twice
    std::uint32_t out;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;"
        : "=r"(out)
        : "r"(small), "r"(factors), "r"(nothing));
    return out;
#else
    const float factor = float_of_bits(0x7b800000u); // 2^120
    return to_bf16_pair(float_of_bits(small << 16) * factor,
                        float_of_bits(small & 0xffff0000u) * factor);
#endif
  }
};

} // namespace troupe::cuda
