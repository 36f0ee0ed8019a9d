#pragma once

#include "engine/ops/backend.hpp"

#include <memory>

namespace troupe::test {

/// A backend of plain loops in double precision over dequantised weights, with
/// keys and values kept as floats: what the decoder's own tests compare with,
/// so that they do not depend on the kernels.
std::unique_ptr<ops::backend> make_naive_backend();

} // namespace troupe::test
