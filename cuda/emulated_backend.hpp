#pragma once

#include "cuda/runtime/emulated.hpp"
#include "engine/ops/backend.hpp"

#include <filesystem>
#include <memory>

namespace troupe::cuda {

/// The GPU's backend, kernels and all, run by the CPU: for tests. A thousand
/// times slower than the CPU's own.
std::unique_ptr<ops::backend>
make_emulated_backend(const emulated_options& how = {},
                      const std::filesystem::path& cache_folder = {},
                      ops::kv_type kv = ops::kv_type::f16);

} // namespace troupe::cuda
