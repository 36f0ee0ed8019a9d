#include "cuda/stored_weight.hpp"

#include "cuda/kernels/numbers.hpp"
#include "engine/ops/cpu/tiled_weight.hpp"
#include "engine/ops/dense_layout.hpp"
#include "engine/ops/e4m3_codes.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>
#include <utility>

namespace troupe::cuda {

namespace {

using ops::element_type;

/// Refuses a part in e4m3 that is not what it says, or holds what is no number.
result<void> check_e4m3(const ops::matrix_view& part) {
  if (static_cast<std::int64_t>(part.bytes.size()) != part.rows * part.cols ||
      static_cast<std::int64_t>(part.scales.size()) !=
          part.rows * part.row_scales ||
      (part.row_scales != 1 &&
       part.row_scales != ops::scales_of_cols(part.cols)))
    return error{errc::invalid_argument,
                 "a weight's bytes do not match its shape"};
  const bool finite =
      ops::are_e4m3_numbers(part.bytes) &&
      std::all_of(part.scales.begin(), part.scales.end(),
                  [](float scale) { return std::isfinite(scale); });
  if (!finite)
    return error{errc::corrupt, "a weight is not a finite number"};
  return {};
}

/// A part's scale, of e4m3.
float scale_of(const ops::matrix_view& part, std::int64_t row,
               std::int64_t block) {
  const auto at = row * part.row_scales + (part.row_scales > 1 ? block : 0);
  return part.scales[static_cast<std::size_t>(at)];
}

/// Of e4m3, which is checked.
void append_widened(const ops::matrix_view& part, std::byte* to) {
  for (std::int64_t i = 0; i < part.rows * part.cols; ++i) {
    const e4m3 number{
        std::to_integer<std::uint8_t>(part.bytes[static_cast<std::size_t>(i)])};
    const auto scale =
        scale_of(part, i / part.cols, i % part.cols / ops::scale_cols);
    const auto stored = to_bf16(to_float(number) * scale);
    std::memcpy(to + i * 2, &stored.bits, 2);
  }
}

result<void> append_rounded(const ops::matrix_view& part,
                            ops::cpu::team& workers, std::byte* to) {
  if (part.type == element_type::e4m3) {
    append_widened(part, to);
    return {};
  }
  auto read = ops::cpu::tiled_weight::pack({&part, 1}, workers);
  if (!read)
    return read.error();
  const auto& rows = **read;
  workers.run(part.rows, [&](std::int64_t begin, std::int64_t end, int) {
    std::vector<float> row(static_cast<std::size_t>(part.cols));
    for (auto r = begin; r < end; ++r) {
      rows.read_row(r, row.data());
      for (std::int64_t i = 0; i < part.cols; ++i) {
        const auto stored = to_bf16(row[static_cast<std::size_t>(i)]);
        std::memcpy(to + (r * part.cols + i) * 2, &stored.bits, 2);
      }
    }
  });
  return {};
}

/// The row as e4m3, and its scale; false if it is not finite.
bool round_row(std::span<const float> row, std::byte* to, float& scale) {
  constexpr float largest = 448;
  float most = 0;
  for (auto x : row) {
    if (!std::isfinite(x))
      return false;
    most = std::max(most, std::fabs(x));
  }
  scale = most / largest;
  if (scale == 0) // also of a row that is too small for one
    scale = 1;
  for (std::size_t i = 0; i < row.size(); ++i)
    to[i] = std::byte{to_e4m3(row[i] / scale).bits};
  return true;
}

/// Each row has `count` scales.
void put_scale(float scale, std::int64_t row, std::int64_t at,
               std::int64_t count, std::byte* scales) {
  std::memcpy(scales + (row * count + at) * std::int64_t{sizeof scale}, &scale,
              sizeof scale);
}

/// Rows that have fewer scales than `row_scales` have the same for all columns.
result<void> append_e4m3(const ops::matrix_view& part, std::int64_t row_scales,
                         ops::cpu::team& workers, std::byte* to,
                         std::byte* scales) {
  if (part.type == element_type::e4m3) {
    std::memcpy(to, part.bytes.data(), part.bytes.size());
    for (std::int64_t r = 0; r < part.rows; ++r)
      for (std::int64_t b = 0; b < row_scales; ++b)
        put_scale(scale_of(part, r, b), r, b, row_scales, scales);
    return {};
  }
  auto read = ops::cpu::tiled_weight::pack({&part, 1}, workers);
  if (!read)
    return read.error();
  std::atomic<bool> is_finite = true;
  workers.run(part.rows, [&](std::int64_t begin, std::int64_t end, int) {
    std::vector<float> row(static_cast<std::size_t>(part.cols));
    for (auto r = begin; r < end; ++r) {
      (*read)->read_row(r, row.data());
      float scale = 1;
      if (!round_row(row, to + r * part.cols, scale))
        is_finite = false;
      for (std::int64_t b = 0; b < row_scales; ++b)
        put_scale(scale, r, b, row_scales, scales);
    }
  });
  if (!is_finite)
    return error{errc::corrupt, "a weight is not a finite number"};
  return {};
}

result<dense_weight> make_e4m3(std::span<const ops::matrix_view> parts,
                               dense_weight out) {
  out.is_e4m3 = true;
  out.row_scales = ops::row_scales_of(parts);
  out.bytes.resize(static_cast<std::size_t>(ops::dense_bytes(parts)));
  const bool rounds =
      std::any_of(parts.begin(), parts.end(),
                  [](const auto& part) { return part.as_e4m3; });
  const auto threads = std::clamp(std::thread::hardware_concurrency(), 1u, 16u);
  auto workers = ops::cpu::team::make(rounds ? static_cast<int>(threads) : 1);
  if (!workers)
    return workers.error();
  auto* to = out.bytes.data();
  auto* scales = to + ops::e4m3_scales_at(out.rows, out.cols);
  for (const auto& part : parts) {
    if (auto done = append_e4m3(part, out.row_scales, **workers, to, scales);
        !done)
      return done.error();
    to += part.rows * part.cols;
    scales += part.rows * out.row_scales * std::int64_t{sizeof(float)};
  }
  return out;
}

} // namespace

result<dense_weight> make_dense(std::span<const ops::matrix_view> parts) {
  dense_weight out;
  out.type = ops::dense_type(parts);
  for (const auto& part : parts) {
    if (part.cols != parts.front().cols)
      return error{errc::invalid_argument,
                   "weights that share an input have as many columns"};
    if (part.type == element_type::e4m3)
      if (auto done = check_e4m3(part); !done)
        return done.error();
    out.rows += part.rows;
    out.cols = part.cols;
  }
  if (ops::kept_as_e4m3(parts))
    return make_e4m3(parts, std::move(out));
  const auto size = ops::layout_of(out.type).bytes;
  out.bytes.resize(static_cast<std::size_t>(out.rows * out.cols * size));
  auto workers = ops::cpu::team::make(1);
  if (!workers)
    return workers.error();
  auto* to = out.bytes.data();
  for (const auto& part : parts) {
    const auto bytes = static_cast<std::size_t>(part.rows * part.cols * size);
    if (part.type == out.type)
      std::memcpy(to, part.bytes.data(), bytes);
    else if (auto done = append_rounded(part, **workers, to); !done)
      return done.error();
    to += bytes;
  }
  return out;
}

} // namespace troupe::cuda
