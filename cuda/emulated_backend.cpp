#include "cuda/emulated_backend.hpp"

#include "cuda/device_backend.hpp"
#include "cuda/device_communicator.hpp"
#include "cuda/host_transport.hpp"
#include "cuda/thread_transport.hpp"

#include <utility>

namespace troupe::cuda {

namespace {

using transport_maker = std::function<std::unique_ptr<device_transport>(
    emulated_device&, ops::communicator& hosts)>;

/// `threads`: of the ranks, if all are of this process.
emulated_rank connect(std::unique_ptr<ops::communicator> hosts,
                      const std::shared_ptr<ops::thread_group>& threads,
                      const emulated_options& how,
                      const std::filesystem::path& cache_folder,
                      const transport_maker& make,
                      const transport_change& change, ops::kv_type kv) {
  auto device = std::make_unique<emulated_device>(how);
  auto& used = *device;
  emulated_rank out;
  out.backend = std::make_unique<device_backend<emulated_device>>(
      std::move(device), cache_folder, kv);
  auto transport = make(used, *hosts);
  if (change)
    transport = change(std::move(transport), *hosts);
  std::unique_ptr<peer_link<emulated_device>> peers;
  if (how.has_peers && threads && threads->size() > 1)
    peers = std::make_unique<peer_link<emulated_device>>(used, threads,
                                                         hosts->rank());
  out.ranks = std::make_unique<device_communicator<emulated_device>>(
      used, std::move(hosts), std::move(transport), std::move(peers));
  return out;
}

} // namespace

emulated_rank make_emulated_rank(std::shared_ptr<ops::thread_group> group,
                                 std::int32_t rank, const emulated_options& how,
                                 const std::filesystem::path& cache_folder,
                                 const transport_change& change,
                                 ops::kv_type kv) {
  auto make = [&](emulated_device& device, ops::communicator&) {
    return std::make_unique<thread_transport<emulated_device>>(device, group,
                                                               rank);
  };
  return connect(ops::make_thread_communicator(group, rank), group, how,
                 cache_folder, make, change, kv);
}

emulated_rank make_emulated_rank(std::unique_ptr<ops::communicator> hosts,
                                 std::shared_ptr<ops::thread_group> threads,
                                 const emulated_options& how,
                                 const transport_change& change,
                                 ops::kv_type kv) {
  auto make = [&](emulated_device& device,
                  ops::communicator& all) -> std::unique_ptr<device_transport> {
    if (threads)
      return std::make_unique<thread_transport<emulated_device>>(
          device, threads, all.rank());
    return std::make_unique<host_transport<emulated_device>>(device, all);
  };
  return connect(std::move(hosts), threads, how, {}, make, change, kv);
}

std::unique_ptr<ops::backend>
make_emulated_backend(const emulated_options& how,
                      const std::filesystem::path& cache_folder,
                      ops::kv_type kv) {
  return std::make_unique<device_backend<emulated_device>>(
      std::make_unique<emulated_device>(how), cache_folder, kv);
}

} // namespace troupe::cuda
