#include "cuda/emulated_backend.hpp"
#include "engine/ops/cuda_module.hpp"

#include <cstdlib>
#include <string>
#include <unistd.h>

// What is found by dlopen in the place of cuda/module.cu: a GPU of 1 GiB for
// each that CUDA_VISIBLE_DEVICES lists, computed by the CPU. It leaves word of
// who opened which, in the file that EMULATED_GPU_LOG names.

namespace {

using namespace troupe;

constexpr std::uint64_t gpu_bytes = 1u << 30;

std::string visible() {
  const char* set = std::getenv("CUDA_VISIBLE_DEVICES");
  return set == nullptr ? "" : set;
}

void leave_word() {
  const char* log = std::getenv("EMULATED_GPU_LOG");
  if (log == nullptr)
    return;
  auto* file = std::fopen(log, "a");
  if (file == nullptr)
    return;
  std::fprintf(file, "%d %s\n", static_cast<int>(::getpid()),
               visible().c_str());
  std::fclose(file);
}

} // namespace

extern "C" __attribute__((visibility("default"))) void
troupe_cuda_open(const ops::cuda_options& how, result<ops::cuda_device>* out) {
  if (how.number != 0 || visible().empty()) {
    *out = error{errc::unavailable, "no GPU can be used here"};
    return;
  }
  leave_word();
  ops::cuda_device device;
  device.free_bytes = gpu_bytes;
  device.all_bytes = gpu_bytes;
  device.backend = cuda::make_emulated_backend({}, {}, how.kv);
  *out = std::move(device);
}

extern "C" __attribute__((visibility("default"))) const char*
troupe_cuda_version() {
  return ops::cuda_module_version;
}
