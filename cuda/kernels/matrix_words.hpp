#pragma once

#include "cuda/kernels/numbers.hpp"

#include <type_traits>

namespace troupe::cuda {

/// Eight numbers of a row as they are stored, one after the other in words. To
/// read them is all that waits for the memory; what they are as bf16 is worked
/// out when they are multiplied.
template <class Stored>
struct stored_eight {
  static constexpr int size = sizeof(Stored);
  static constexpr int words = 2 * size;
  std::uint32_t at[words];

  /// The first `count` of those at `from`, which may be more or fewer than
  /// there are here; the others are 0.
  TROUPE_KERNEL void read(const Stored* from, std::int64_t count) {
    TROUPE_UNROLL
    for (int w = 0; w < words; ++w)
      at[w] = 0;
    TROUPE_UNROLL
    for (int i = 0; i < 8; ++i)
      if (i < count)
        at[i * size / 4] |= code_of(from[i]) << i * size % 4 * 8;
  }

  /// The eight at `from`, a multiple of 16 bytes (of 8 for e4m3).
  TROUPE_KERNEL void read_whole(const Stored* from) {
    constexpr int n = words < 4 ? words : 4; // 16 bytes at once at most
    TROUPE_UNROLL
    for (int w = 0; w < words; w += n) {
      const auto some =
          reinterpret_cast<const pack<std::uint32_t, n>*>(from)[w / n];
      TROUPE_UNROLL
      for (int i = 0; i < n; ++i)
        at[w + i] = some.at[i];
    }
  }

  /// Of f16 and float.
  TROUPE_KERNEL float number(int i) const {
    if constexpr (std::is_same_v<Stored, float>)
      return float_of_bits(at[i]);
    else
      return to_float(
          Stored{static_cast<std::uint16_t>(at[i / 2] >> i % 2 * 16)});
  }

private:
  TROUPE_KERNEL static std::uint32_t code_of(float x) {
    return bits_of(x);
  }
  template <class Number>
  TROUPE_KERNEL static std::uint32_t code_of(Number x) {
    return x.bits;
  }
};

/// Eight numbers of a row as bf16, two to a word, for `multiply_add`. Numbers
/// of more bits are a sum of two: `high` is the number rounded, `low` what that
/// lacks, rounded.
template <class Stored>
struct matrix_words {
  static constexpr bool is_split = true;
  std::uint32_t high[4], low[4];

  TROUPE_KERNEL explicit matrix_words(const stored_eight<Stored>& of) {
    TROUPE_UNROLL
    for (int i = 0; i < 4; ++i)
      set(i, of.number(2 * i), of.number(2 * i + 1));
  }

  TROUPE_KERNEL explicit matrix_words(const float (&of)[8]) {
    TROUPE_UNROLL
    for (int i = 0; i < 4; ++i)
      set(i, of[2 * i], of[2 * i + 1]);
  }

private:
  TROUPE_KERNEL void set(int i, float a, float b) {
    high[i] = to_bf16_pair(a, b);
    low[i] = to_bf16_pair(a - float_of_bits(high[i] << 16),
                          b - float_of_bits(high[i] & 0xffff0000u));
  }
};

template <>
struct matrix_words<bf16> {
  static constexpr bool is_split = false;
  std::uint32_t high[4];

  TROUPE_KERNEL explicit matrix_words(const stored_eight<bf16>& of) {
    TROUPE_UNROLL
    for (int i = 0; i < 4; ++i)
      high[i] = of.at[i];
  }
};

/// Of finite numbers, which all are bf16, too.
template <>
struct matrix_words<e4m3> {
  static constexpr bool is_split = false;
  std::uint32_t high[4];

  TROUPE_KERNEL explicit matrix_words(const stored_eight<e4m3>& of)
      : matrix_words(of.at[0], of.at[1]) {
    // nop
  }

protected:
  TROUPE_KERNEL matrix_words(std::uint32_t first, std::uint32_t second)
      : high{widened(lower_apart(first)), widened(upper_apart(first)),
             widened(lower_apart(second)), widened(upper_apart(second))} {
    // nop
  }

private:
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
struct matrix_words<block_e4m3> : matrix_words<e4m3> {
  TROUPE_KERNEL explicit matrix_words(const stored_eight<block_e4m3>& of)
      : matrix_words<e4m3>(of.at[0], of.at[1]) {
    // nop
  }
};

} // namespace troupe::cuda
