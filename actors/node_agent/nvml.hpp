#pragma once

#include "actors/protocol/cluster_messages.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace troupe::node_agent {

/// The few functions of NVML (NVIDIA's management library) that a node needs,
/// as its documentation declares them. The library is opened at run time;
/// without it, or without a driver, there are no GPUs.
class nvml {
public:
  nvml();
  nvml(const nvml&) = delete;
  nvml& operator=(const nvml&) = delete;
  ~nvml();

  std::uint32_t count() const;

  /// Empty if there is none.
  std::string name_of(std::uint32_t index) const;

  /// Bytes; 0 if it is not known.
  std::uint64_t memory_of(std::uint32_t index) const;

  /// What is used now of the GPU that CUDA_VISIBLE_DEVICES names so: by a
  /// number, or by the beginning of its UUID. Nothing if it is not known.
  std::optional<protocol::gpu_use> use_of(const std::string& visible) const;

private:
  static constexpr int success = 0;

  /// nvmlMemory_t, in bytes.
  struct memory_info {
    unsigned long long total, free, used;
  };

  /// nvmlUtilization_t, in percent of the last second or less.
  struct utilization {
    unsigned gpu, memory;
  };

  template <class Function>
  void find(Function*& to, const char* name);
  void* device_of(const std::string& visible) const;

  void* library_;
  bool usable_ = false;
  int (*init_)() = nullptr;
  int (*shutdown_)() = nullptr;
  int (*count_)(unsigned*) = nullptr;
  int (*device_)(unsigned, void**) = nullptr;
  int (*device_by_uuid_)(const char*, void**) = nullptr;
  int (*name_)(void*, char*, unsigned) = nullptr;
  int (*memory_)(void*, memory_info*) = nullptr;
  int (*utilization_)(void*, utilization*) = nullptr;
  int (*uuid_)(void*, char*, unsigned) = nullptr;
};

} // namespace troupe::node_agent
