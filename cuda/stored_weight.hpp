#pragma once

#include "cuda/kernels/numbers.hpp"
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
  /// e4m3, with a scale per row behind (ops::e4m3_scales_at); `type` means
  /// nothing then.
  bool is_e4m3 = false;
  std::vector<std::byte> bytes;
};

/// Stacks the parts, which have the same number of columns. Fails if they have
/// not, or if what is to be e4m3 is not finite. A row's scale is its greatest
/// magnitude over 448.
result<dense_weight> make_dense(std::span<const ops::matrix_view> parts);

/// Calls f with a weight's elements as what they are.
template <class F>
void with_elements(ops::element_type type, bool is_e4m3, const void* elements,
                   F f) {
  if (is_e4m3)
    f(static_cast<const e4m3*>(elements));
  else if (type == ops::element_type::f32)
    f(static_cast<const float*>(elements));
  else if (type == ops::element_type::f16)
    f(static_cast<const f16*>(elements));
  else
    f(static_cast<const bf16*>(elements));
}

} // namespace troupe::cuda
