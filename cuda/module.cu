#include "cuda/device_backend.hpp"
#include "cuda/device_communicator.hpp"
#include "cuda/peer_link.hpp"
#include "cuda/runtime/gpu.hpp"
#include "cuda/runtime/nccl.hpp"
#include "cuda/thread_transport.hpp"
#include "engine/ops/cuda_module.hpp"

#include <set>

// What is found by dlopen (engine/ops/cuda_module.hpp).

namespace {

using namespace troupe;

using cuda::gpu_device;

/// NCCL refuses ranks that share a GPU.
result<std::unique_ptr<cuda::device_transport>>
connect(gpu_device& device, const ops::cuda_options& how,
        ops::communicator& hosts) {
  const auto places = hosts.tell_all(device.bus_id());
  if (std::set<std::string>{places.begin(), places.end()}.size() ==
      places.size())
    return cuda::connect_nccl(how.group, hosts, device.stream());
  return std::make_unique<cuda::thread_transport<gpu_device>>(device, how.group,
                                                              how.rank);
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

result<std::unique_ptr<ops::communicator>>
make_rank(gpu_device& device, const ops::cuda_options& how) {
  auto hosts = ops::make_thread_communicator(how.group, how.rank);
  auto failed = [&](const std::string& why) { // before the hosts part
    how.group->end("rank " + std::to_string(how.rank) + ": " + why);
    return error{errc::unavailable, why};
  };
  try {
    auto transport = connect(device, how, *hosts);
    if (!transport)
      return failed(transport.error().message);
    move_once(device, **transport, hosts->size());
    std::unique_ptr<cuda::peer_link<gpu_device>> peers;
    if (how.group->size() == hosts->size() && reach_all(device, *hosts))
      peers = std::make_unique<cuda::peer_link<gpu_device>>(device, how.group,
                                                            how.rank);
    return std::make_unique<cuda::device_communicator<gpu_device>>(
        device, std::move(hosts), std::move(*transport), std::move(peers));
  } catch (const std::exception& why) {
    return failed(why.what());
  }
}

result<ops::cuda_device> open_device(const ops::cuda_options& how) {
  auto device = gpu_device::open(how.number);
  if (!device)
    return device.error();
  ops::cuda_device out;
  if (how.group) {
    auto rank = make_rank(**device, how);
    if (!rank)
      return rank.error();
    out.ranks = std::move(*rank);
  }
  out.free_bytes = (*device)->free_bytes();
  out.all_bytes = (*device)->all_bytes();
  out.backend = std::make_unique<cuda::device_backend<gpu_device>>(
      std::move(*device), how.cache_folder, how.kv);
  return out;
}

} // namespace

extern "C" __attribute__((visibility("default"))) void
troupe_cuda_open(const ops::cuda_options& how, result<ops::cuda_device>* out) {
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
