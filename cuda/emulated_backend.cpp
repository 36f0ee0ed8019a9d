#include "cuda/emulated_backend.hpp"

#include "cuda/device_backend.hpp"
#include "cuda/device_communicator.hpp"
#include "cuda/thread_transport.hpp"

#include <utility>

namespace troupe::cuda {

emulated_rank make_emulated_rank(std::shared_ptr<ops::thread_group> group,
                                 std::int32_t rank, const emulated_options& how,
                                 const std::filesystem::path& cache_folder,
                                 const transport_change& change,
                                 ops::kv_type kv) {
  auto device = std::make_unique<emulated_device>(how);
  auto& used = *device;
  emulated_rank out;
  out.backend = std::make_unique<device_backend<emulated_device>>(
      std::move(device), cache_folder, kv);
  auto hosts = ops::make_thread_communicator(group, rank);
  std::unique_ptr<device_transport> transport =
      std::make_unique<thread_transport<emulated_device>>(used, group, rank);
  if (change)
    transport = change(std::move(transport), *hosts);
  std::unique_ptr<peer_link<emulated_device>> peers;
  if (how.has_peers && group->size() > 1)
    peers = std::make_unique<peer_link<emulated_device>>(used, group, rank);
  out.ranks = std::make_unique<device_communicator<emulated_device>>(
      used, std::move(hosts), std::move(transport), std::move(peers));
  return out;
}

std::unique_ptr<ops::backend>
make_emulated_backend(const emulated_options& how,
                      const std::filesystem::path& cache_folder,
                      ops::kv_type kv) {
  return std::make_unique<device_backend<emulated_device>>(
      std::make_unique<emulated_device>(how), cache_folder, kv);
}

} // namespace troupe::cuda
