#pragma once

#include "cuda/product_choice.hpp"

#include <cstddef>
#include <cstdint>

namespace troupe::cuda {

/// y[r][o] = sum_i x[r][i] * weight[o][i] (+ y[r][o] if `add`), by an algorithm
/// of a device's library. Weight and rows are both bf16 or both f16, as the
/// shape says. All is the device's memory.
struct product {
  const void* weight = nullptr;
  const void* x = nullptr;
  product_shape shape;
  std::int64_t rows = 0;
  float* y = nullptr;
  bool add = false;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};

/// Shapes for which there are algorithms: all rows begin at multiples of 16
/// bytes.
inline bool has_algorithms(const product_shape& shape) {
  return shape.cols % 8 == 0 && shape.outputs % 8 == 0;
}

} // namespace troupe::cuda
