#pragma once

#include <cstddef>
#include <utility>

namespace troupe::cuda {

/// Memory of a device, which outlives it. Moves, and is released once.
template <class Device>
class device_memory {
public:
  device_memory() = default;
  device_memory(Device& device, std::size_t bytes)
      : device_(&device), bytes_(bytes),
        memory_(bytes == 0 ? nullptr : device.allocate(bytes)) {
    // nop
  }
  device_memory(device_memory&& other) noexcept {
    swap(other);
  }
  device_memory& operator=(device_memory other) noexcept {
    swap(other);
    return *this;
  }
  ~device_memory() {
    if (memory_ != nullptr)
      device_->release(memory_);
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

} // namespace troupe::cuda
