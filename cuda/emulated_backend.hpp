#pragma once

#include "engine/ops/backend.hpp"

#include <memory>

namespace troupe::cuda {

/// The GPU's backend, kernels and all, run by the CPU: for tests. A thousand
/// times slower than the CPU's own.
std::unique_ptr<ops::backend> make_emulated_backend();

} // namespace troupe::cuda
