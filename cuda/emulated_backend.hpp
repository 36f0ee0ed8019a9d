#pragma once

#include "cuda/device_transport.hpp"
#include "cuda/runtime/emulated.hpp"
#include "engine/ops/backend.hpp"
#include "engine/ops/communicator.hpp"
#include "engine/ops/thread_group.hpp"

#include <filesystem>
#include <functional>
#include <memory>

namespace troupe::cuda {

/// The GPU's backend, kernels and all, run by the CPU: for tests. A thousand
/// times slower than the CPU's own.
std::unique_ptr<ops::backend>
make_emulated_backend(const emulated_options& how = {},
                      const std::filesystem::path& cache_folder = {},
                      ops::kv_type kv = ops::kv_type::f16);

/// One of several ranks on emulated devices of their own.
struct emulated_rank {
  std::unique_ptr<ops::backend> backend;
  std::unique_ptr<ops::communicator> ranks; ///< over the backend's memory
};

/// Gives what is to stand for what moves between the ranks.
using transport_change = std::function<std::unique_ptr<device_transport>(
    std::unique_ptr<device_transport>, ops::communicator& hosts)>;

/// `rank` is of the group's.
emulated_rank make_emulated_rank(std::shared_ptr<ops::thread_group> group,
                                 std::int32_t rank,
                                 const emulated_options& how = {},
                                 const std::filesystem::path& cache_folder = {},
                                 const transport_change& change = {},
                                 ops::kv_type kv = ops::kv_type::f16);

/// The same by a communicator of the hosts that is there already. `threads`:
/// of the ranks, if all are of this process; null: numbers go through the
/// hosts.
emulated_rank make_emulated_rank(std::unique_ptr<ops::communicator> hosts,
                                 std::shared_ptr<ops::thread_group> threads,
                                 const emulated_options& how = {},
                                 const transport_change& change = {},
                                 ops::kv_type kv = ops::kv_type::f16);

} // namespace troupe::cuda
