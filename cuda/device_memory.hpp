#pragma once

#include "engine/codec/error.hpp"

#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <utility>

namespace troupe::cuda {

enum class memory_place : std::uint8_t {
  device,
  host, ///< that the device reads and writes by itself
};

/// Memory of a device, which outlives it. Moves, and is released once.
template <class Device, memory_place Place = memory_place::device>
class device_memory {
public:
  device_memory() = default;
  device_memory(Device& device, std::size_t bytes)
      : device_(&device), bytes_(bytes) {
    if (bytes > 0)
      memory_ = Place == memory_place::device ? device.allocate(bytes)
                                              : device.allocate_host(bytes);
  }
  device_memory(device_memory&& other) noexcept {
    swap(other);
  }
  device_memory& operator=(device_memory other) noexcept {
    swap(other);
    return *this;
  }
  ~device_memory() {
    if (memory_ == nullptr)
      return;
    if constexpr (Place == memory_place::device)
      device_->release(memory_);
    else
      device_->release_host(memory_);
  }

  template <class T>
  T* as() const {
    return static_cast<T*>(memory_);
  }
  std::size_t bytes() const {
    return bytes_;
  }

private:
  void swap(device_memory& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(bytes_, other.bytes_);
    std::swap(memory_, other.memory_);
  }

  Device* device_ = nullptr;
  std::size_t bytes_ = 0;
  void* memory_ = nullptr;
};

/// Of the host. What is sent out of it has to stay until it has arrived.
template <class Device>
using host_memory = device_memory<Device, memory_place::host>;

/// Makes it of so many bytes, or says that there is no room.
template <class Device>
result<void> take(Device& device, device_memory<Device>& what,
                  std::size_t bytes) {
  try {
    what = device_memory<Device>{device, bytes};
  } catch (const std::bad_alloc&) {
    return error{errc::limit, "the GPU has no room for " +
                                  std::to_string(bytes >> 20) + " MiB"};
  }
  return {};
}

/// Makes it as large, if it is smaller; what was in it is gone.
template <class Device, memory_place Place>
void grow(Device& device, device_memory<Device, Place>& what,
          std::size_t bytes) {
  if (what.bytes() >= bytes)
    return;
  what = {}; // two at once are not planned
  what = device_memory<Device, Place>{device, bytes};
}

} // namespace troupe::cuda
