#pragma once

#include "engine/codec/error.hpp"
#include "engine/ops/tensor.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace troupe::cuda {

/// A weight as a GPU keeps it (engine/ops/dense_layout.hpp).
struct dense_weight {
  ops::element_type type = ops::element_type::bf16;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::vector<std::byte> bytes;
};

/// Stacks the parts, which have the same number of columns. Fails if they have
/// not.
result<dense_weight> make_dense(std::span<const ops::matrix_view> parts);

} // namespace troupe::cuda
