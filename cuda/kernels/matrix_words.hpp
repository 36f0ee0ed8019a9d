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
    TROUPE_UNROLL
    for (int i = 0; i < 8; ++i)
      some[i] = row != nullptr && k + i < cols ? to_float(row[k + i]) : 0.0f;
    set(some);
  }

  /// The eight at `from`, a multiple of 16 bytes (of 8 for e4m3).
  TROUPE_KERNEL void read_whole(const Stored* from) {
    float some[8];
    read_floats<8>(from, some);
    set(some);
  }

  TROUPE_KERNEL void set(const float (&some)[8]) {
    TROUPE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float a = some[2 * i], b = some[2 * i + 1];
      high[i] = to_bf16_pair(a, b);
      low[i] = to_bf16_pair(a - float_of_bits(high[i] << 16),
                            b - float_of_bits(high[i] & 0xffff0000u));
    }
  }
};

template <>
struct matrix_words<bf16> {
  static constexpr bool is_split = false;
  std::uint32_t high[4];

  TROUPE_KERNEL void read(const bf16* row, std::int64_t k, std::int64_t cols) {
    TROUPE_UNROLL
    for (int i = 0; i < 4; ++i)
      high[i] = at(row, k + 2 * i, cols) | at(row, k + 2 * i + 1, cols) << 16;
  }

  TROUPE_KERNEL void read_whole(const bf16* from) {
    const auto some = *reinterpret_cast<const pack<std::uint32_t, 4>*>(from);
    TROUPE_UNROLL
    for (int i = 0; i < 4; ++i)
      high[i] = some.at[i];
  }

private:
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
    TROUPE_UNROLL
    for (int i = 0; i < 8; ++i)
      if (row != nullptr && k + i < cols)
        some[i / 4] |= std::uint32_t{row[k + i].bits} << i % 4 * 8;
    set(some[0], some[1]);
  }

  TROUPE_KERNEL void read_whole(const e4m3* from) {
    const auto some = *reinterpret_cast<const pack<std::uint32_t, 2>*>(from);
    set(some.at[0], some.at[1]);
  }

private:
  TROUPE_KERNEL void set(std::uint32_t first, std::uint32_t second) {
    high[0] = widened(lower_apart(first));
    high[1] = widened(upper_apart(first));
    high[2] = widened(lower_apart(second));
    high[3] = widened(upper_apart(second));
  }

  // Two bytes, each as the upper one of its half.
#ifdef __CUDA_ARCH__
  TROUPE_KERNEL static std::uint32_t lower_apart(std::uint32_t bytes) {
    return __byte_perm(bytes, 0, 0x1404);
  }
  TROUPE_KERNEL static std::uint32_t upper_apart(std::uint32_t bytes) {
    return __byte_perm(bytes, 0, 0x3424);
  }
#else
  static std::uint32_t lower_apart(std::uint32_t bytes) {
    return (bytes & 0xffu) << 8 | (bytes & 0xff00u) << 16;
  }
  static std::uint32_t upper_apart(std::uint32_t bytes) {
    return lower_apart(bytes >> 16);
  }
#endif

  /// As bf16.
  TROUPE_KERNEL static std::uint32_t widened(std::uint32_t apart) {
    // With an exponent that is 120 too small.
    const std::uint32_t small =
        (apart & 0x80008000u) | (apart & 0x7f007f00u) >> 4;
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

template <>
struct matrix_words<block_e4m3> : matrix_words<e4m3> {};

} // namespace troupe::cuda
