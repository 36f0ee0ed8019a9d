#pragma once

#include "cuda/emulated_backend.hpp"
#include "cuda/runtime/nccl.hpp"
#include "engine/ops/cpu/cpu_backend.hpp"
#include "engine/ops/cuda_module.hpp"
#include "engine/ops/gloo/gloo_communicator.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdlib>
#include <dlfcn.h>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace troupe::test {

/// A rank and the backend in whose memory it computes, which outlives it.
struct one_rank {
  std::unique_ptr<ops::backend> backend;
  std::unique_ptr<ops::communicator> ranks;
};

using backend_maker = std::function<std::unique_ptr<ops::backend>()>;

inline std::unique_ptr<ops::backend> make_cpu() {
  return ops::cpu::make_backend({1, {}}).value();
}

/// All implementations of the communicator; those of the host's memory are with
/// backends of any kind.
struct rank_kind {
  std::string name;
  bool is_host = true;
  std::function<std::vector<one_rank>(std::int32_t, const backend_maker&)> make;
};

inline rank_kind threads_of_a_process() {
  return {"threads", true, [](std::int32_t size, const backend_maker& make) {
            std::vector<one_rank> out;
            for (auto& one : ops::make_thread_communicators(size))
              out.push_back({make(), std::move(one)});
            return out;
          }};
}

/// Calls `make(rank)` on a thread each, which wait for each other.
inline std::vector<one_rank>
on_threads(std::int32_t size,
           const std::function<one_rank(std::int32_t)>& make) {
  std::vector<one_rank> out(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (std::int32_t rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] { out[rank] = make(rank); });
  for (auto& one : threads)
    one.join();
  return out;
}

/// Over sockets, though all are in this process.
inline rank_kind over_sockets() {
  return {"sockets", true, [](std::int32_t size, const backend_maker& make) {
            std::shared_ptr<ops::rank_meeting> meeting =
                ops::make_local_meeting();
            return on_threads(size, [&](std::int32_t rank) {
              return one_rank{make(), ops::connect_ranks(
                                          {.rank = rank, .size = size}, meeting)
                                          .value()};
            });
          }};
}

/// `how` is for the rank whose number it is given.
inline rank_kind
emulated_devices(std::string name,
                 std::function<cuda::emulated_options(std::int32_t rank)> how) {
  return {std::move(name), false,
          [how = std::move(how)](std::int32_t size, const backend_maker&) {
            auto group = std::make_shared<ops::thread_group>(size);
            std::vector<one_rank> out;
            for (std::int32_t rank = 0; rank < size; ++rank) {
              auto made = cuda::make_emulated_rank(group, rank, how(rank));
              out.push_back({std::move(made.backend), std::move(made.ranks)});
            }
            return out;
          }};
}

/// They read each other's memory.
inline rank_kind emulated_devices() {
  return emulated_devices("emulated devices",
                          [](auto) { return cuda::emulated_options{}; });
}

inline rank_kind emulated_devices_apart() {
  return emulated_devices("emulated devices apart", [](auto) {
    return cuda::emulated_options{.has_peers = false};
  });
}

/// A library in NCCL's place (fake_nccl): what of it NCCL has not.
struct made_up_library {
  made_up_library() {
    // Who looks for libnccl.so.2 after that finds this one.
    void* library = dlopen(TROUPE_FAKE_NCCL, RTLD_NOW);
    if (library == nullptr)
      throw std::runtime_error{dlerror()};
    living = reinterpret_cast<int (*)()>(dlsym(library, "fake_nccl_living"));
    waiting = reinterpret_cast<int (*)()>(dlsym(library, "fake_nccl_waiting"));
    wait = reinterpret_cast<void (*)()>(dlsym(library, "fake_nccl_wait"));
  }
  int (*living)();  ///< communicators that are not given back
  void (*wait)();   ///< as a stream does
  int (*waiting)(); ///< streams
};

inline const made_up_library& made_up() {
  static const made_up_library out;
  return out;
}

/// An emulated device does at once what it is given, so it waits at once too.
class waiting_transport final : public cuda::device_transport {
public:
  explicit waiting_transport(std::unique_ptr<cuda::device_transport> by)
      : by_(std::move(by)) {
    // nop
  }
  void gather(const float* own, std::int64_t n, float* all) override {
    by_->gather(own, n, all);
    made_up().wait();
  }
  void exchange(const float* own, std::int64_t n, float* parts) override {
    by_->exchange(own, n, parts);
    made_up().wait();
  }
  bool waits() const override {
    return by_->waits();
  }

private:
  std::unique_ptr<cuda::device_transport> by_;
};

inline one_rank make_rank_by_nccl(std::shared_ptr<ops::thread_group> group,
                                  std::int32_t rank, bool has_peers = false) {
  auto made = cuda::make_emulated_rank(
      group, rank, {.has_peers = has_peers}, {},
      [&](auto, ops::communicator& hosts) {
        return std::make_unique<waiting_transport>(
            cuda::connect_nccl(group, hosts, nullptr).value());
      });
  return {std::move(made.backend), std::move(made.ranks)};
}

/// Who is which of several ranks, of which each process has two, or what is
/// left.
struct rank_of_process {
  std::shared_ptr<ops::thread_group> group;
  std::int32_t rank = 0, rank_here = 0;
};

inline std::vector<rank_of_process> by_processes(std::int32_t size) {
  std::vector<rank_of_process> out;
  for (std::int32_t rank = 0; rank < size; ++rank) {
    if (rank % 2 == 0)
      out.push_back(
          {std::make_shared<ops::thread_group>(std::min(2, size - rank)), rank,
           0});
    else
      out.push_back({out.back().group, rank, 1});
  }
  return out;
}

/// Ranks of several processes, some of which are threads of one, though here
/// all are; `make(communicator, its place)`.
inline std::vector<one_rank>
over_processes(std::int32_t size,
               const std::function<one_rank(std::unique_ptr<ops::communicator>,
                                            const rank_of_process&)>& make) {
  std::shared_ptr<ops::rank_meeting> meeting = ops::make_local_meeting();
  const auto places = by_processes(size);
  return on_threads(size, [&](std::int32_t rank) {
    const auto& place = places[static_cast<std::size_t>(rank)];
    ops::gloo_options how;
    how.rank = rank;
    how.size = size;
    how.group = place.group;
    how.rank_here = place.rank_here;
    return make(ops::connect_ranks(how, meeting).value(), place);
  });
}

inline rank_kind threads_of_processes() {
  return {"threads of processes", true,
          [](std::int32_t size, const backend_maker& make) {
            return over_processes(size, [&](auto ranks, const auto&) {
              return one_rank{make(), std::move(ranks)};
            });
          }};
}

inline rank_kind devices_of_processes() {
  return {"emulated devices of processes", false,
          [](std::int32_t size, const backend_maker&) {
            return over_processes(size, [](auto hosts, const auto&) {
              auto made = cuda::make_emulated_rank(std::move(hosts), nullptr);
              return one_rank{std::move(made.backend), std::move(made.ranks)};
            });
          }};
}

inline rank_kind made_up_nccl_of_processes() {
  return {"made up NCCL of processes", false,
          [](std::int32_t size, const backend_maker&) {
            made_up(); // is found instead of NCCL
            return over_processes(size, [](auto hosts, const auto& place) {
              auto made = cuda::make_emulated_rank(
                  std::move(hosts), nullptr, {},
                  [&](auto, ops::communicator& all) {
                    return std::make_unique<waiting_transport>(
                        cuda::connect_nccl(place.group, all, nullptr).value());
                  });
              return one_rank{std::move(made.backend), std::move(made.ranks)};
            });
          }};
}

inline rank_kind made_up_nccl(bool has_peers = false) {
  return {has_peers ? "made up NCCL beside kernels" : "made up NCCL", false,
          [has_peers](std::int32_t size, const backend_maker&) {
            made_up(); // is found instead of NCCL
            auto group = std::make_shared<ops::thread_group>(size);
            return on_threads(size, [&](std::int32_t rank) {
              return make_rank_by_nccl(group, rank, has_peers);
            });
          }};
}

/// Of the machine, as TROUPE_TEST_GPUS says; else one.
inline std::int32_t gpus() {
  const char* count = std::getenv("TROUPE_TEST_GPUS");
  return count == nullptr ? 1 : std::max(1, std::atoi(count));
}

/// By NCCL, and kernels that read other ranks' memory, where there are as many
/// GPUs; else several share the first.
inline rank_kind on_gpus() {
  return {
      "GPUs", false, [](std::int32_t size, const backend_maker&) {
        auto group = std::make_shared<ops::thread_group>(size);
        return on_threads(size, [&](std::int32_t rank) {
          auto opened = ops::open_cuda({.number = size <= gpus() ? rank : 0,
                                        .cache_folder = {},
                                        .group = group,
                                        .rank_here = rank});
          auto& device = opened.value();
          return one_rank{std::move(device.backend), std::move(device.ranks)};
        });
      }};
}

inline bool on_gpu() {
  const char* device = std::getenv("TROUPE_TEST_DEVICE");
  return device != nullptr && std::string{device} == "cuda";
}

/// Ranks on devices: emulated, or by TROUPE_TEST_DEVICE=cuda
/// (scripts/gpu-check.sh) on GPUs.
inline rank_kind device_kind() {
  return on_gpu() ? on_gpus() : emulated_devices();
}

inline std::vector<rank_kind> all_kinds() {
  std::vector<rank_kind> out{threads_of_a_process(), over_sockets(),
                             threads_of_processes(), device_kind()};
  if (!on_gpu()) { // there it is NCCL itself
    out.push_back(emulated_devices_apart());
    out.push_back(made_up_nccl());
    out.push_back(made_up_nccl(true));
    out.push_back(devices_of_processes());
    out.push_back(made_up_nccl_of_processes());
  }
  return out;
}

} // namespace troupe::test
