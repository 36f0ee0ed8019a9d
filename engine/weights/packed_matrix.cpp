#include "engine/weights/packed_matrix.hpp"

#include "engine/ops/cpu/half.hpp"
#include "engine/ops/e4m3_codes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <iterator>
#include <utility>

namespace troupe::weights {

namespace {

using ops::cpu::to_f16;

constexpr std::int64_t block_values = 32;
constexpr std::int64_t word_values = 8;
constexpr std::size_t q4_1_bytes = 20;
constexpr std::size_t q8_0_bytes = 34;

/// Which nibble of AWQ's words holds an output, by its place among eight.
constexpr std::array<int, 8> awq_nibbles = {0, 4, 1, 5, 2, 6, 3, 7};

error wrong(const stored_tensor& one, std::string_view what,
            errc code = errc::corrupt) {
  return {code, fmt::format("tensor '{}' {}", one.name, what)};
}

bool has_shape(const stored_tensor& one,
               std::initializer_list<std::int64_t> shape) {
  return std::equal(one.shape.begin(), one.shape.end(), shape.begin(),
                    shape.end());
}

std::uint32_t word_at(const stored_tensor& one, std::int64_t index) {
  std::uint32_t word = 0;
  std::memcpy(&word, one.bytes.data() + index * 4, sizeof word);
  return word;
}

bool finite_f16(std::uint16_t half) {
  return (half & 0x7c00) != 0x7c00;
}

void put_half(std::uint16_t half, std::byte* out) {
  std::memcpy(out, &half, sizeof half);
}

/// A matrix of four-bit weights and its sizes, all checked.
struct int4_source {
  const stored_tensor* weights = nullptr;
  const stored_tensor* zeros = nullptr;
  int4_packing packing = int4_packing::awq;
  std::int64_t in = 0;
  std::int64_t out = 0;
  std::int64_t group = 0;    ///< inputs that share a scale
  std::vector<float> scales; ///< [in / group][out]

  /// The 32 values of block `b` of output `o`.
  std::array<std::uint8_t, block_values> values(std::int64_t o,
                                                std::int64_t b) const {
    std::array<std::uint8_t, block_values> nibbles;
    if (packing == int4_packing::awq) {
      auto words = out / word_values;
      auto first = b * block_values * words + o / word_values;
      auto shift = 4 * awq_nibbles[o % word_values];
      for (std::int64_t k = 0; k < block_values; ++k)
        nibbles[k] = word_at(*weights, first + k * words) >> shift & 15;
      return nibbles;
    }
    auto first = b * (block_values / word_values) * out + o;
    for (std::int64_t k = 0; k < block_values; ++k)
      nibbles[k] = word_at(*weights, first + k / word_values * out) >>
                       4 * (k % word_values) &
                   15;
    return nibbles;
  }

  std::uint32_t zero(std::int64_t g, std::int64_t o) const {
    auto word = word_at(*zeros, g * (out / word_values) + o / word_values);
    auto at = o % word_values;
    auto nibble = packing == int4_packing::awq ? awq_nibbles[at] : at;
    return (word >> 4 * nibble & 15) + (packing == int4_packing::gptq ? 1 : 0);
  }

  result<void> write_block(std::int64_t o, std::int64_t b,
                           std::byte* to) const {
    auto g = b * block_values / group;
    auto scale = scales[g * out + o];
    auto d = to_f16(scale);
    auto m = to_f16(-scale * static_cast<float>(zero(g, o)));
    if (!finite_f16(d) || !finite_f16(m))
      return wrong(*weights, "has a scale that is not finite or too large");
    put_half(d, to);
    put_half(m, to + 2);
    auto from = values(o, b);
    for (int k = 0; k < 16; ++k)
      to[4 + k] = static_cast<std::byte>(from[k] | from[k + 16] << 4);
    return {};
  }

  result<void> write(std::span<std::byte> to) const {
    auto blocks = in / block_values;
    // Outputs inside: those of one block lie together in the file.
    for (std::int64_t b = 0; b < blocks; ++b)
      for (std::int64_t o = 0; o < out; ++o)
        if (auto done =
                write_block(o, b, to.data() + (o * blocks + b) * q4_1_bytes);
            !done)
          return done;
    return {};
  }
};

/// Refuses inputs whose groups are not one after the other.
result<void> check_groups(const stored_tensor& groups,
                          const int4_source& source) {
  if (groups.type != stored_type::i32 || !has_shape(groups, {source.in}))
    return wrong(groups, "is not one group per input");
  for (std::int64_t i = 0; i < source.in; ++i)
    if (word_at(groups, i) != static_cast<std::uint32_t>(i / source.group))
      return wrong(groups,
                   "puts the groups out of order (desc_act): not supported",
                   errc::unsupported);
  return {};
}

result<void> find_sizes(const int4_parts& parts, int4_source& source) {
  const auto& words = *parts.weights;
  if (words.type != stored_type::i32 || words.shape.size() != 2)
    return wrong(words, "is not an I32 matrix");
  bool awq = source.packing == int4_packing::awq;
  constexpr auto most = std::int64_t{1} << 31;
  if (words.shape[0] > most || words.shape[1] > most)
    return wrong(words, "is too large", errc::limit);
  source.in = words.shape[0] * (awq ? 1 : word_values);
  source.out = words.shape[1] * (awq ? word_values : 1);
  if (parts.scales->shape.size() != 2 || parts.scales->shape[1] != source.out ||
      parts.scales->shape[0] < 1 || source.in % parts.scales->shape[0] != 0)
    return wrong(*parts.scales, "does not have a scale per group and output");
  source.group = source.in / parts.scales->shape[0];
  if (source.group < block_values || source.group % block_values != 0)
    return wrong(*parts.scales,
                 fmt::format("has groups of {} inputs, no multiple of 32: not "
                             "supported",
                             source.group),
                 errc::unsupported);
  if (parts.zeros->type != stored_type::i32 ||
      !has_shape(*parts.zeros,
                 {parts.scales->shape[0], source.out / word_values}) ||
      source.out % word_values != 0)
    return wrong(*parts.zeros, "does not have a zero per group and output");
  return {};
}

made_tensor matrix_of(ops::element_type type, std::int64_t in,
                      std::int64_t out) {
  made_tensor made;
  made.out.type = type;
  made.out.shape = {in, out};
  return made;
}

/// Scales of a matrix [out][in]: one for all, or one per output.
result<std::vector<float>> row_scales(const stored_tensor& weights,
                                      const stored_tensor& scales) {
  auto out = weights.shape[0];
  bool one = scales.elements() == 1;
  if (!one && !has_shape(scales, {out}) && !has_shape(scales, {out, 1}))
    return wrong(scales,
                 "is neither one scale nor one per output: not "
                 "supported",
                 errc::unsupported);
  auto values = floats_of(scales);
  if (values && one)
    values->resize(static_cast<std::size_t>(out), values->front());
  return values;
}

/// The scales of a matrix, each of a block of it.
struct block_scales {
  std::int64_t height = 1; ///< of a block: outputs
  std::int64_t width = 1;  ///< and columns
  std::int64_t across = 1; ///< blocks of an output
  std::vector<float> values;

  const float* of_output(std::int64_t o) const {
    return values.data() + o / height * across;
  }
};

/// Whether all numbers of E4M3 times a scale are finite as floats and as bf16.
bool is_scale(float scale) {
  constexpr double largest_e4m3 = 448, largest_bf16 = 0x1.fep127;
  return std::abs(scale) * largest_e4m3 <= largest_bf16; // not of NaN
}

/// Of an F8_E4M3 matrix, with scales as fp8_matrix has them.
result<block_scales> fp8_scales(const stored_tensor& weights,
                                const stored_tensor& scales,
                                std::int64_t block) {
  if (weights.type != stored_type::f8_e4m3 || weights.shape.size() != 2)
    return wrong(weights, "is not an F8_E4M3 matrix");
  const auto out = weights.shape[0], in = weights.shape[1];
  if (in == 0 || out == 0)
    return wrong(weights, "has no elements");
  block_scales by{1, in, 1, {}};
  if (block > 0) {
    by = {block, block, (in + block - 1) / block, {}};
    if (!has_shape(scales, {(out + block - 1) / block, by.across}))
      return wrong(scales, "does not have a scale per block");
  }
  auto values = block > 0 ? floats_of(scales) : row_scales(weights, scales);
  if (!values)
    return values.error();
  if (!std::all_of(values->begin(), values->end(), is_scale))
    return wrong(scales, "has a scale that is not finite or too large");
  by.values = std::move(*values);
  return by;
}

/// The value of an E4M3 float (no infinities; 0x7f and 0xff are NaN).
float from_f8_e4m3(std::uint8_t bits) {
  auto exponent = bits >> 3 & 15;
  auto fraction = bits & 7;
  if (exponent == 15 && fraction == 7)
    return NAN;
  auto magnitude = exponent == 0 ? std::ldexp(fraction, -9)
                                 : std::ldexp(8 + fraction, exponent - 10);
  return static_cast<float>(bits & 0x80 ? -magnitude : magnitude);
}

std::array<float, 256> f8_table() {
  std::array<float, 256> out;
  for (int i = 0; i < 256; ++i)
    out[i] = from_f8_e4m3(static_cast<std::uint8_t>(i));
  return out;
}

} // namespace

result<made_tensor> int4_matrix(const int4_parts& parts, int4_packing packing) {
  int4_source source;
  source.weights = parts.weights;
  source.zeros = parts.zeros;
  source.packing = packing;
  if (auto done = find_sizes(parts, source); !done)
    return done.error();
  if (parts.groups)
    if (auto done = check_groups(*parts.groups, source); !done)
      return done.error();
  auto scales = floats_of(*parts.scales);
  if (!scales)
    return scales.error();
  auto made = matrix_of(ops::element_type::q4_1, source.in, source.out);
  // Scales are widened while they are needed only.
  made.write = [source, from = parts.scales](std::span<std::byte> out) {
    auto whole = source;
    whole.scales = *floats_of(*from);
    return whole.write(out);
  };
  return made;
}

result<made_tensor> int8_matrix(const stored_tensor& weights,
                                const stored_tensor& scales) {
  if (weights.type != stored_type::i8 || weights.shape.size() != 2)
    return wrong(weights, "is not an I8 matrix");
  auto out = weights.shape[0];
  auto in = weights.shape[1];
  if (in == 0 || in % block_values != 0)
    return wrong(weights,
                 fmt::format("has rows of {} inputs, no multiple of 32: not "
                             "supported",
                             in),
                 errc::unsupported);
  auto values = row_scales(weights, scales);
  if (!values)
    return values.error();
  auto made = matrix_of(ops::element_type::q8_0, in, out);
  made.write = [&weights, in, values = std::move(*values)](
                   std::span<std::byte> to) -> result<void> {
    for (std::size_t o = 0; o < values.size(); ++o) {
      auto d = to_f16(values[o]);
      if (!finite_f16(d))
        return wrong(weights, "has a scale that is not finite or too large");
      for (std::int64_t b = 0; b < in / block_values; ++b) {
        put_half(d, to.data());
        auto at = static_cast<std::int64_t>(o) * in + b * block_values;
        std::memcpy(to.data() + 2, weights.bytes.data() + at, block_values);
        to = to.subspan(q8_0_bytes);
      }
    }
    return {};
  };
  return made;
}

result<made_tensor> fp8_matrix(const stored_tensor& weights,
                               const stored_tensor& scales,
                               std::int64_t block) {
  auto by = fp8_scales(weights, scales, block);
  if (!by)
    return by.error();
  auto made =
      matrix_of(ops::element_type::f16, weights.shape[1], weights.shape[0]);
  made.write = [&weights,
                by = std::move(*by)](std::span<std::byte> to) -> result<void> {
    static const auto table = f8_table();
    const auto out = weights.shape[0], in = weights.shape[1];
    for (std::int64_t o = 0; o < out; ++o)
      for (std::int64_t i = 0; i < in; ++i) {
        auto at = o * in + i;
        auto scale = by.of_output(o)[i / by.width];
        auto half =
            to_f16(table[static_cast<std::size_t>(weights.bytes[at])] * scale);
        if (!finite_f16(half))
          return wrong(weights, "has a value that is not finite or too large "
                                "for F16");
        put_half(half, to.data() + at * 2);
      }
    return {};
  };
  return made;
}

result<made_tensor> e4m3_matrix(const stored_tensor& weights,
                                const stored_tensor& scales,
                                std::int64_t block) {
  auto by = fp8_scales(weights, scales, block);
  if (!by)
    return by.error();
  auto made =
      matrix_of(ops::element_type::e4m3, weights.shape[1], weights.shape[0]);
  made.out.bytes = weights.bytes;
  made.out.row_scales = by->across;
  made.scales = [&weights,
                 by = std::move(*by)]() -> result<std::vector<float>> {
    if (!ops::are_e4m3_numbers(weights.bytes))
      return wrong(weights, "has an element that is not a number");
    std::vector<float> out;
    for (std::int64_t o = 0; o < weights.shape[0]; ++o)
      std::copy_n(by.of_output(o), by.across, std::back_inserter(out));
    return out;
  };
  return made;
}

} // namespace troupe::weights
