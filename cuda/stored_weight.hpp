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
  /// e4m3, with the rows' scales behind (ops::e4m3_scales_at); `type` means
  /// nothing then.
  bool is_e4m3 = false;
  std::int64_t row_scales = 1; ///< ops::matrix_view has what it means
  std::vector<std::byte> bytes;
};

/// Stacks the parts, which have the same number of columns. Fails if they have
/// not, or if what is to be e4m3 is not finite. What is e4m3 already keeps its
/// numbers and scales, unless it is stacked with what is not to be; where it is
/// made of other numbers, a row's scale is its greatest magnitude over 448.
result<dense_weight> make_dense(std::span<const ops::matrix_view> parts);

/// Calls f with the elements of a weight, which says what they are.
template <class Weight, class F>
void with_elements(const Weight& weight, const void* elements, F f) {
  const ops::element_type type = weight.type;
  if (weight.is_e4m3 && weight.row_scales > 1)
    f(static_cast<const block_e4m3*>(elements));
  else if (weight.is_e4m3)
    f(static_cast<const e4m3*>(elements));
  else if (type == ops::element_type::f32)
    f(static_cast<const float*>(elements));
  else if (type == ops::element_type::f16)
    f(static_cast<const f16*>(elements));
  else
    f(static_cast<const bf16*>(elements));
}

} // namespace troupe::cuda
