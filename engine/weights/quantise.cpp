#include "engine/weights/quantise.hpp"

#include "engine/ops/cpu/half.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace troupe::weights {

namespace {

using ops::element_type;
using ops::cpu::from_bf16;
using ops::cpu::from_f16;
using ops::cpu::to_f16;

constexpr std::size_t block_values = 32;
constexpr std::size_t piece_values = 1u << 14;

template <class Word, class ToFloat>
std::vector<float> widened(std::span<const std::byte> bytes, ToFloat convert) {
  std::vector<float> out(bytes.size() / sizeof(Word));
  for (std::size_t i = 0; i < out.size(); ++i) {
    Word word;
    std::memcpy(&word, bytes.data() + i * sizeof word, sizeof word);
    out[i] = convert(word);
  }
  return out;
}

std::uint16_t to_bf16(float value) {
  auto bits = std::bit_cast<std::uint32_t>(value); // finite: no NaN to keep
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

bool is_finite_f16(std::uint16_t half) {
  return (half & 0x7c00) != 0x7c00;
}

/// 1 / d, or 0 where that is not a float.
float reciprocal(float d) {
  auto inverse = 1 / d;
  return d == 0 || !std::isfinite(inverse) ? 0 : inverse;
}

/// To the nearest whole number, halves away from zero.
float rounded(float value) {
  auto magnitude = std::abs(value);
  auto below = std::floor(magnitude);
  auto nearest = below + std::floor(2 * (magnitude - below));
  return std::copysign(nearest, value);
}

bool put_scale(float d, std::byte* out) {
  auto half = to_f16(d);
  std::memcpy(out, &half, sizeof half);
  return is_finite_f16(half);
}

bool put_q8_0(const float* values, std::byte* out) {
  float largest = 0;
  for (std::size_t i = 0; i < block_values; ++i)
    largest = std::max(largest, std::abs(values[i]));
  auto d = largest / 127;
  auto inverse = reciprocal(d);
  for (std::size_t i = 0; i < block_values; ++i)
    out[2 + i] = static_cast<std::byte>(
        static_cast<std::int8_t>(rounded(values[i] * inverse)));
  return put_scale(d, out);
}

bool put_q4_0(const float* values, std::byte* out) {
  float furthest = 0; // the first of those furthest from zero
  for (std::size_t i = 0; i < block_values; ++i)
    if (std::abs(values[i]) > std::abs(furthest))
      furthest = values[i];
  auto d = furthest / -8;
  auto inverse = reciprocal(d);
  auto nibble = [&](std::size_t i) {
    auto shifted = values[i] * inverse + 8.5f;
    return std::clamp(static_cast<int>(shifted), 0, 15);
  };
  for (std::size_t i = 0; i < block_values / 2; ++i)
    out[2 + i] =
        static_cast<std::byte>(nibble(i) | nibble(i + block_values / 2) << 4);
  return put_scale(d, out);
}

template <class Put>
bool put_all(std::span<const float> values, std::size_t step, std::size_t bytes,
             std::span<std::byte> out, Put put) {
  bool fits = true;
  for (std::size_t i = 0; i < values.size() / step; ++i)
    fits = put(values.data() + i * step, out.data() + i * bytes) && fits;
  return fits;
}

bool put_f16(const float* value, std::byte* out) {
  return put_scale(*value, out);
}

bool put_bf16(const float* value, std::byte* out) {
  auto half = to_bf16(*value);
  std::memcpy(out, &half, sizeof half);
  return std::isfinite(from_bf16(half));
}

bool put(std::span<const float> values, element_type type,
         std::span<std::byte> out) {
  auto layout = ops::layout_of(type);
  auto step = static_cast<std::size_t>(layout.elements);
  auto bytes = static_cast<std::size_t>(layout.bytes);
  switch (type) {
  case element_type::f32:
    std::memcpy(out.data(), values.data(), values.size_bytes());
    return true;
  case element_type::f16:
    return put_all(values, step, bytes, out, put_f16);
  case element_type::bf16:
    return put_all(values, step, bytes, out, put_bf16);
  case element_type::q8_0:
    return put_all(values, step, bytes, out, put_q8_0);
  case element_type::q4_0:
    return put_all(values, step, bytes, out, put_q4_0);
  default:
    return false;
  }
}

} // namespace

bool is_float(element_type type) {
  return type == element_type::f32 || type == element_type::f16 ||
         type == element_type::bf16;
}

std::vector<float> widen(element_type type, std::span<const std::byte> bytes) {
  if (type == element_type::f32)
    return widened<float>(bytes, [](float value) { return value; });
  if (type == element_type::f16)
    return widened<std::uint16_t>(bytes, from_f16);
  return widened<std::uint16_t>(bytes, from_bf16);
}

result<void> narrow(std::span<const float> values, element_type type,
                    std::span<std::byte> out) {
  bool finite = std::all_of(values.begin(), values.end(),
                            [](float value) { return std::isfinite(value); });
  if (!finite)
    return error{errc::corrupt, "a weight is not a finite number"};
  if (!put(values, type, out))
    return error{errc::corrupt, "a weight is too large for its type"};
  return {};
}

result<void> convert(element_type from, std::span<const std::byte> bytes,
                     element_type to, std::span<std::byte> out) {
  auto size_of = [](std::size_t values, element_type type) {
    auto layout = ops::layout_of(type);
    return values / static_cast<std::size_t>(layout.elements) *
           static_cast<std::size_t>(layout.bytes);
  };
  const auto piece = size_of(piece_values, from);
  while (!bytes.empty()) {
    auto values = widen(from, bytes.first(std::min(piece, bytes.size())));
    bytes = bytes.subspan(size_of(values.size(), from));
    auto here = out.first(size_of(values.size(), to));
    out = out.subspan(here.size());
    if (auto done = narrow(values, to, here); !done)
      return done;
  }
  return {};
}

} // namespace troupe::weights
