#pragma once

#include "engine/codec/error.hpp"
#include "engine/ops/backend.hpp"
#include "engine/ops/communicator.hpp"
#include "engine/ops/thread_group.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>

namespace troupe::ops {

/// A GPU with the backend that computes on it.
struct cuda_device {
  std::unique_ptr<ops::backend> backend;
  /// Of one of several ranks; over the backend's memory, which outlives it.
  std::unique_ptr<communicator> ranks;
  std::uint64_t free_bytes = 0; ///< before anything was loaded
  std::uint64_t all_bytes = 0;
};

struct cuda_options {
  int number = 0; ///< of the GPUs that CUDA_VISIBLE_DEVICES leaves
  /// Where it is kept which algorithms are the best on this machine; empty:
  /// nowhere, they are searched for each time.
  std::filesystem::path cache_folder;
  /// Of ranks that compute together, those that are threads of this process,
  /// each opened by the thread that computes with it; null: it computes alone.
  /// Opening returns when all ranks are connected, or the group has ended; it
  /// ends with the first that cannot be connected.
  std::shared_ptr<thread_group> group = nullptr;
  std::int32_t rank_here = 0; ///< of the group's
  /// What the rank talks through to all others, over the host's memory, if some
  /// are other processes'; null: all are the group's.
  std::unique_ptr<communicator> hosts = nullptr;
  kv_type kv = kv_type::f16; ///< how it keeps keys and values
};

/// Raised with every change of backend.hpp, of what that includes or of this
/// file: what module and program hand each other has no stable layout.
inline constexpr const char* cuda_module_version = "troupe-cuda-12";

/// Opens a GPU. All that needs CUDA is in a module, libtroupe_cuda.so, which is
/// opened at run time: TROUPE_CUDA_MODULE names it, else it lies beside the
/// program or in ../lib. It stays open. Errors say what is lacking: the module,
/// one of CUDA's libraries, a driver, a GPU.
result<cuda_device> open_cuda(cuda_options how);

/// Whether there is a module that can be opened; the error says why not. Does
/// not look for a GPU.
result<void> find_cuda_module();

} // namespace troupe::ops
