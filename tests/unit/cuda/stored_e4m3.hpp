#pragma once

#include "cuda/stored_weight.hpp"
#include "engine/ops/dense_layout.hpp"
#include "tests/unit/cuda/random_floats.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

namespace troupe::test {

/// What the format says a code means; not a number for two of them.
inline double value_of(unsigned code) {
  const int exponent = static_cast<int>(code >> 3 & 15);
  const int mantissa = static_cast<int>(code & 7);
  const double magnitude = exponent == 15 && mantissa == 7 ? NAN
                           : exponent == 0
                               ? std::ldexp(mantissa, -9)
                               : std::ldexp(8 + mantissa, exponent - 10);
  return code & 0x80 ? -magnitude : magnitude;
}

/// Numbers as a file has them, and the scales of their rows.
struct stored_e4m3 {
  std::int64_t rows = 0;
  std::vector<std::byte> numbers;
  std::vector<float> scales;

  ops::matrix_view view() const {
    ops::matrix_view out;
    out.type = ops::element_type::e4m3;
    out.rows = rows;
    out.cols = static_cast<std::int64_t>(numbers.size()) / rows;
    out.bytes = numbers;
    out.scales = scales;
    out.row_scales = static_cast<std::int64_t>(scales.size()) / rows;
    return out;
  }

  /// The same numbers with other scales.
  stored_e4m3 scaled(float by) const {
    auto out = *this;
    for (auto& scale : out.scales)
      scale *= by;
    return out;
  }
};

/// Of all codes that are numbers; scales are powers of two.
inline stored_e4m3 random_e4m3(std::int64_t rows, std::int64_t cols,
                               std::uint64_t seed, bool in_blocks = false) {
  std::mt19937_64 random{seed};
  stored_e4m3 out{rows, {}, {}};
  for (std::int64_t i = 0; i < rows * cols; ++i)
    out.numbers.push_back(
        static_cast<std::byte>(random() % 127 | (random() % 2) << 7));
  const auto scales = rows * (in_blocks ? ops::scales_of_cols(cols) : 1);
  for (std::int64_t i = 0; i < scales; ++i)
    out.scales.push_back(std::ldexp(1.0f, -static_cast<int>(random() % 12)));
  return out;
}

/// The nearest number with eight bits, as bf16 has; of two the even one.
inline double nearest_bf16(double x) {
  int exponent = 0;
  const auto fraction = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(fraction, 8)), exponent - 8);
}

/// What a weight in e4m3 stands for.
inline std::vector<double> meant_by(const cuda::dense_weight& w) {
  REQUIRE(w.is_e4m3);
  std::vector<float> scales(static_cast<std::size_t>(w.rows * w.row_scales));
  std::memcpy(scales.data(),
              w.bytes.data() + ops::e4m3_scales_at(w.rows, w.cols),
              scales.size() * sizeof(float));
  std::vector<double> out;
  for (std::int64_t r = 0; r < w.rows; ++r)
    for (std::int64_t i = 0; i < w.cols; ++i) {
      const auto block = w.row_scales > 1 ? i / ops::scale_cols : 0;
      out.push_back(value_of(static_cast<unsigned>(
                        w.bytes[static_cast<std::size_t>(r * w.cols + i)])) *
                    scales[static_cast<std::size_t>(r * w.row_scales + block)]);
    }
  return out;
}

} // namespace troupe::test
