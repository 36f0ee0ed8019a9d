#pragma once

#include "engine/codec/error.hpp"
#include "engine/ops/backend.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>

namespace troupe::ops {

/// A GPU with the backend that computes on it.
struct cuda_device {
  std::unique_ptr<ops::backend> backend;
  std::uint64_t free_bytes = 0; ///< before anything was loaded
  std::uint64_t all_bytes = 0;
};

struct cuda_options {
  int number = 0; ///< of the GPUs that CUDA_VISIBLE_DEVICES leaves
  /// Where it is kept which algorithms are the best on this machine; empty:
  /// nowhere, they are searched for each time.
  std::filesystem::path cache_folder;
  kv_type kv = kv_type::f16; ///< how it keeps keys and values
};

/// Raised with every change of backend.hpp or of this file: what module and
/// program hand each other has no stable layout.
inline constexpr const char* cuda_module_version = "troupe-cuda-5";

/// Opens a GPU. All that needs CUDA is in a module, libtroupe_cuda.so, which is
/// opened at run time: TROUPE_CUDA_MODULE names it, else it lies beside the
/// program or in ../lib. It stays open. Errors say what is lacking: the module,
/// one of CUDA's libraries, a driver, a GPU.
result<cuda_device> open_cuda(const cuda_options& how);

/// Whether there is a module that can be opened; the error says why not. Does
/// not look for a GPU.
result<void> find_cuda_module();

} // namespace troupe::ops
