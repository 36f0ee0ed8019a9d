#include "cuda/emulated_backend.hpp"
#include "cuda/rank_places.hpp"
#include "engine/ops/cuda_module.hpp"

#include <chrono>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

// What is found by dlopen in the place of cuda/module.cpp: a GPU of 1 GiB for
// each that CUDA_VISIBLE_DEVICES lists, computed by the CPU. It leaves word of
// who opened which, in the file that EMULATED_GPU_LOG names. As long as there
// is the file that EMULATED_GPU_HANG names, ranks but the first hang; if there
// is the one that EMULATED_GPU_FAIL names, they fail, and with the one that
// EMULATED_GPU_SLOW names they rest a while: before a kernel of theirs.

namespace {

using namespace troupe;

constexpr std::uint64_t gpu_bytes = 1u << 30;

std::string variable(const char* name) {
  const char* set = std::getenv(name);
  return set == nullptr ? "" : set;
}

std::vector<std::string> visible() {
  std::vector<std::string> out;
  std::istringstream list{variable("CUDA_VISIBLE_DEVICES")};
  for (std::string one; std::getline(list, one, ',');)
    out.push_back(one);
  return out;
}

void leave_word(const std::string& gpu) {
  const auto log = variable("EMULATED_GPU_LOG");
  auto* file = log.empty() ? nullptr : std::fopen(log.c_str(), "a");
  if (file == nullptr)
    return;
  std::fprintf(file, "%d %s\n", static_cast<int>(::getpid()), gpu.c_str());
  std::fclose(file);
}

bool is_there(const std::string& file) {
  return !file.empty() && ::access(file.c_str(), F_OK) == 0;
}

void hang_if_asked(std::int32_t rank) {
  static const auto file = variable("EMULATED_GPU_HANG");
  while (rank > 0 && is_there(file))
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
}

void fail_if_asked(std::int32_t rank) {
  if (rank > 0 && is_there(variable("EMULATED_GPU_FAIL")))
    throw std::runtime_error{"a step on a GPU failed"};
}

void rest_if_asked(std::int32_t rank) {
  static const auto file = variable("EMULATED_GPU_SLOW");
  if (rank > 0 && is_there(file))
    std::this_thread::sleep_for(std::chrono::milliseconds{10});
}

} // namespace

namespace {

/// Late, as a GPU is: nothing is done before somebody waits. It can be
/// disturbed before each kernel.
cuda::emulated_options late(std::int32_t rank) {
  return {.is_late = true, .before_kernel = [rank] {
            hang_if_asked(rank);
            fail_if_asked(rank);
            rest_if_asked(rank);
          }};
}

/// One that several processes may have, or ranks of this one alone.
result<cuda::emulated_rank> open_rank(ops::cuda_options& how,
                                      const result<std::string>& gpu) {
  auto threads = how.hosts ? nullptr : how.group;
  auto hosts = cuda::hosts_of(how);
  auto places = cuda::tell_places(*hosts, how, gpu);
  if (!places) {
    how.group->end(places.error().message);
    return places.error();
  }
  const auto rank = hosts->rank();
  return cuda::make_emulated_rank(std::move(hosts), std::move(threads),
                                  late(rank), {}, how.kv);
}

result<std::string> gpu_of(int number) {
  const auto gpus = visible();
  if (number < 0 || number >= static_cast<int>(gpus.size()))
    return error{errc::unavailable,
                 "no GPU " + std::to_string(number) + " can be used here"};
  return gpus[static_cast<std::size_t>(number)];
}

result<ops::cuda_device> open_device(ops::cuda_options& how) {
  const auto gpu = gpu_of(how.number);
  ops::cuda_device device;
  device.free_bytes = gpu_bytes;
  device.all_bytes = gpu_bytes;
  if (how.group) {
    auto made = open_rank(how, gpu);
    if (!made)
      return made.error();
    device.backend = std::move(made->backend);
    device.ranks = std::move(made->ranks);
  } else if (!gpu) {
    return gpu.error();
  } else {
    device.backend = cuda::make_emulated_backend(late(0), {}, how.kv);
  }
  leave_word(*gpu);
  return device;
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
