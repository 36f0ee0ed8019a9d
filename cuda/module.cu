#include "cuda/device_backend.hpp"
#include "cuda/runtime/gpu.hpp"
#include "engine/ops/cuda_module.hpp"

// What is found by dlopen (engine/ops/cuda_module.hpp).

namespace {

using namespace troupe;

result<ops::cuda_device> open_device(const ops::cuda_options& how) {
  auto device = cuda::gpu_device::open(how.number);
  if (!device)
    return device.error();
  ops::cuda_device out;
  out.free_bytes = (*device)->free_bytes();
  out.all_bytes = (*device)->all_bytes();
  out.backend = std::make_unique<cuda::device_backend<cuda::gpu_device>>(
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
