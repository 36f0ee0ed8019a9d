#pragma once

#include "cuda/runtime/emulated.hpp"
#include "engine/ops/backend.hpp"

#include <cstdint>
#include <memory>

namespace troupe::cuda {

/// The GPU's backend, kernels and all, run by the CPU: for tests. A thousand
/// times slower than the CPU's own. `blocks_wanted`: launches of fewer blocks
/// are divided further where they can be. `usage`, if it is given, outlives the
/// backend.
std::unique_ptr<ops::backend>
make_emulated_backend(std::int64_t blocks_wanted = 0,
                      emulated_usage* usage = nullptr);

} // namespace troupe::cuda
