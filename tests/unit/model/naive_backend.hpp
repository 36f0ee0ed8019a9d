#pragma once

#include "engine/ops/backend.hpp"

#include <memory>

namespace troupe::test {

/// What a naive backend rounds beyond keeping activations as floats.
enum class rounding {
  none,
  /// As the CPU backend's contract says: keys and values to f16, of a model in
  /// bf16 to bf16, as queries and weights of positions then; inputs of products
  /// with quantised weights to int8 in blocks of 32, with weights in bf16 to
  /// bf16.
  as_cpu,
};

/// A backend of plain loops in double precision over dequantised weights: what
/// the decoder's own tests compare with, so that they do not depend on the
/// kernels.
std::unique_ptr<ops::backend> make_naive_backend(rounding = rounding::none);

} // namespace troupe::test
