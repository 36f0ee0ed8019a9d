#include "cuda/device_backend.hpp"
#include "cuda/device_communicator.hpp"
#include "cuda/peer_link.hpp"
#include "cuda/rank_places.hpp"
#include "cuda/runtime/gpu.hpp"
#include "cuda/runtime/nccl.hpp"
#include "cuda/thread_transport.hpp"
#include "engine/ops/cuda_module.hpp"

#include <algorithm>
#include <set>

// What is found by dlopen (engine/ops/cuda_module.hpp).

namespace {

using namespace troupe;

using cuda::gpu_device;

/// NCCL refuses ranks that share a GPU. `places`: whose GPU each rank has.
result<std::unique_ptr<cuda::device_transport>>
connect(gpu_device& device, const ops::cuda_options& how,
        ops::communicator& hosts, const std::vector<std::string>& places) {
  if (std::set<std::string>{places.begin(), places.end()}.size() ==
      places.size())
    return cuda::connect_nccl(how.group, hosts, device.stream());
  if (hosts.size() != how.group->size())
    return error{errc::unsupported,
                 "ranks that share a GPU have to be on one node"};
  return std::make_unique<cuda::thread_transport<gpu_device>>(device, how.group,
                                                              how.rank_here);
}

/// Whether all ranks are threads of this process on GPUs that reach each
/// other's memory; then they do from now on.
bool reach_all(gpu_device& device, ops::communicator& hosts) {
  const auto numbers = hosts.tell_all(std::to_string(device.number()));
  bool can = hosts.size() > 1 &&
             hosts.size() <= ops::gpu_peer_layout::ranks_max &&
             std::set<std::string>{numbers.begin(), numbers.end()}.size() ==
                 numbers.size();
  for (std::int32_t r = 0; can && r < hosts.size(); ++r)
    if (r != hosts.rank())
      can = device.reach(std::stoi(numbers[static_cast<std::size_t>(r)]));
  for (const auto& said : hosts.tell_all(can ? "can" : ""))
    can = can && said == "can";
  return can;
}

/// So that all that it takes of the GPU's memory is taken now: a library may
/// connect otherwise for few numbers than for many.
void move_once(gpu_device& device, cuda::device_transport& transport,
               std::int32_t ranks) {
  constexpr std::int64_t few = 1024, many = 1 << 20;
  const auto bytes = static_cast<std::size_t>(many * ranks) * sizeof(float);
  const cuda::device_memory<gpu_device> from{device, bytes}, to{device, bytes};
  device.zero(from.as<void>(), bytes);
  for (const auto n : {few, many}) {
    transport.gather(from.as<float>(), n, to.as<float>());
    transport.exchange(from.as<float>(), n, to.as<float>());
  }
  device.wait();
}

ops::cuda_device with_backend(std::unique_ptr<gpu_device> device,
                              const ops::cuda_options& how) {
  ops::cuda_device out;
  out.free_bytes = device->free_bytes();
  out.all_bytes = device->all_bytes();
  out.backend = std::make_unique<cuda::device_backend<gpu_device>>(
      std::move(device), how.cache_folder, how.kv);
  return out;
}

/// All ranks connect, or none: each hears from all whether they have a GPU.
result<ops::cuda_device> open_rank(ops::cuda_options& how) {
  auto hosts = cuda::hosts_of(how);
  const auto name = "rank " + std::to_string(hosts->rank()) + ": ";
  auto failed = [&](const std::string& why) { // before the hosts part
    how.group->end(name + why);
    return error{errc::unavailable, why};
  };
  try {
    auto device = gpu_device::open(how.number);
    auto places = cuda::tell_places(
        *hosts, how,
        device ? result<std::string>{(*device)->bus_id()} : device.error());
    if (!places) { // says whose
      how.group->end(places.error().message);
      return places.error();
    }
    auto& used = **device;
    auto out = with_backend(std::move(*device), how); // outlives what follows
    const auto free_before = used.free_bytes();
    auto transport = connect(used, how, *hosts, *places);
    if (!transport)
      return failed(transport.error().message);
    move_once(used, **transport, hosts->size());
    std::unique_ptr<cuda::peer_link<gpu_device>> peers;
    if (how.group->size() == hosts->size() && reach_all(used, *hosts))
      peers = std::make_unique<cuda::peer_link<gpu_device>>(used, how.group,
                                                            how.rank_here);
    out.ranks = std::make_unique<cuda::device_communicator<gpu_device>>(
        used, std::move(hosts), std::move(*transport), std::move(peers));
    // What connecting took is gone, and not the engine's to give.
    const auto free_now = used.free_bytes();
    out.free_bytes -= free_before - std::min(free_before, free_now);
    return out;
  } catch (const std::exception& why) {
    return failed(why.what());
  }
}

result<ops::cuda_device> open_device(ops::cuda_options& how) {
  if (how.group)
    return open_rank(how);
  auto device = gpu_device::open(how.number);
  if (!device)
    return device.error();
  return with_backend(std::move(*device), how);
}

} // namespace

extern "C" __attribute__((visibility("default"))) void
troupe_cuda_open(ops::cuda_options& how, result<ops::cuda_device>* out) {
  try {
    *out = open_device(how);
  } catch (const std::exception& why) {
    *out = error{errc::unavailable, why.what()};
  }
}

extern "C" __attribute__((visibility("default"))) const char*
troupe_cuda_version() {
  return ops::cuda_module_version;
}
