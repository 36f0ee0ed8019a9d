#pragma once

#include "engine/ops/tensor.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

/// GGML's block formats weight by weight, without the engine's code: in T =
/// float with the roundings of GGML, in T = double nearly without.
namespace troupe::ops::test {

template <class T>
T half_at(const std::byte* at) {
  std::uint16_t half = 0;
  std::memcpy(&half, at, sizeof half);
  const T sign = half >> 15 ? -1 : 1;
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 31)
    return fraction == 0 ? sign * static_cast<T>(INFINITY)
                         : static_cast<T>(NAN);
  if (exponent == 0)
    return sign * std::ldexp(static_cast<T>(fraction), -24);
  return sign * std::ldexp(static_cast<T>(1024 + fraction), exponent - 25);
}

/// A block of `type` at `at`; weight(i) is its i-th.
template <class T>
class ggml_block {
public:
  ggml_block(element_type type, const std::byte* at) : type_(type), at_(at) {
  }

  T weight(int i) const {
    switch (type_) {
    case element_type::f32: {
      float value = 0;
      std::memcpy(&value, at_, sizeof value);
      return value;
    }
    case element_type::f16:
      return half(0);
    case element_type::bf16: {
      std::uint32_t bits = bits_at(0, 0, 8) << 16 | bits_at(1, 0, 8) << 24;
      float value = 0;
      std::memcpy(&value, &bits, sizeof value);
      return value;
    }
    case element_type::q8_0:
      return half(0) * integer(static_cast<std::int8_t>(at_[2 + i]));
    case element_type::q4_0:
      return half(0) * integer(nibble(2, i) - 8);
    case element_type::q4_1:
      return half(0) * integer(nibble(4, i)) + half(2);
    case element_type::q5_0:
      return half(0) * integer(nibble(6, i) + 16 * fifth(2, i) - 16);
    case element_type::q5_1:
      return half(0) * integer(nibble(8, i) + 16 * fifth(4, i)) + half(2);
    case element_type::iq4_nl: {
      constexpr int values[] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                1,    13,   25,  38,  53,  69,  89,  113};
      return half(0) * integer(values[nibble(2, i)]);
    }
    case element_type::q4_k:
    case element_type::q5_k:
      return weight_of_q4_k(i);
    case element_type::q6_k: {
      const int quarter = i % 128 / 32;
      const int low =
          bits_at(i / 128 * 64 + quarter % 2 * 32 + i % 32, quarter / 2 * 4, 4);
      const int high = bits_at(128 + i / 128 * 32 + i % 32, quarter * 2, 2);
      const auto scale = static_cast<std::int8_t>(at_[192 + i / 16]);
      return half(208) * integer(scale) * integer(low + 16 * high - 32);
    }
    case element_type::q3_k: {
      const int high = bits_at(i % 32, i / 32, 1);
      const int j = i / 16;
      const int scale = bits_at(96 + j % 8, j / 8 * 4, 4) +
                        16 * bits_at(104 + j % 4, j / 4 * 2, 2) - 32;
      return half(108) * integer(scale) *
             integer(two_bits(32, i) + 4 * high - 4);
    }
    case element_type::q2_k: {
      const int scale = bits_at(i / 16, 0, 4), minimum = bits_at(i / 16, 4, 4);
      return half(80) * integer(scale) * integer(two_bits(16, i)) -
             half(82) * integer(minimum);
    }
    case element_type::e4m3: // none of GGML's
      break;
    }
    return 0;
  }

private:
  static T integer(int value) {
    return static_cast<T>(value);
  }
  T half(int byte) const {
    return half_at<T>(at_ + byte);
  }
  int bits_at(int byte, int from, int bits) const {
    return static_cast<int>(at_[byte]) >> from & ((1 << bits) - 1);
  }
  int nibble(int first, int i) const {
    return bits_at(first + i % 16, i / 16 * 4, 4);
  }
  int fifth(int first, int i) const {
    return bits_at(first + i / 8, i % 8, 1);
  }
  /// Of super-blocks: 128 weights share 32 bytes.
  int two_bits(int first, int i) const {
    return bits_at(first + i / 128 * 32 + i % 32, i % 128 / 32 * 2, 2);
  }

  T weight_of_q4_k(int i) const {
    const bool five = type_ == element_type::q5_k;
    const int j = i / 32, values = five ? 48 : 16;
    int q = bits_at(values + j / 2 * 32 + i % 32, j % 2 * 4, 4);
    if (five)
      q += 16 * bits_at(16 + i % 32, j, 1);
    // Twelve bytes from 4 on: scales and minimums of six bits.
    const int scale = j < 4 ? bits_at(4 + j, 0, 6)
                            : bits_at(8 + j, 0, 4) + 16 * bits_at(j, 6, 2);
    const int minimum = j < 4
                            ? bits_at(8 + j, 0, 6)
                            : bits_at(8 + j, 4, 4) + 16 * bits_at(4 + j, 6, 2);
    return half(0) * integer(scale) * integer(q) - half(2) * integer(minimum);
  }

  element_type type_;
  const std::byte* at_;
};

/// Appends the weights of the block at `at`.
template <class T>
void append_block(element_type type, const std::byte* at, std::vector<T>& out) {
  const ggml_block<T> block{type, at};
  for (int i = 0; i < layout_of(type).elements; ++i)
    out.push_back(block.weight(i));
}

} // namespace troupe::ops::test
