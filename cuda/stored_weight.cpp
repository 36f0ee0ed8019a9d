#include "cuda/stored_weight.hpp"

#include "cuda/kernels/numbers.hpp"
#include "engine/ops/cpu/tiled_weight.hpp"
#include "engine/ops/dense_layout.hpp"

#include <cstring>

namespace troupe::cuda {

namespace {

using ops::element_type;

result<void> append_rounded(const ops::matrix_view& part,
                            ops::cpu::team& workers, std::byte* to) {
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

} // namespace

result<dense_weight> make_dense(std::span<const ops::matrix_view> parts) {
  dense_weight out;
  out.type = ops::dense_type(parts);
  for (const auto& part : parts) {
    if (part.cols != parts.front().cols)
      return error{errc::invalid_argument,
                   "weights that share an input have as many columns"};
    out.rows += part.rows;
    out.cols = part.cols;
  }
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
