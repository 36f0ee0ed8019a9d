#pragma once

#include "cuda/device_transport.hpp"
#include "engine/ops/thread_group.hpp"

#include <memory>
#include <utility>

namespace troupe::cuda {

/// Between devices that are one process's, and may be the same: each rank
/// copies from the others' memory. The host waits for the devices, so it is for
/// ranks that share a GPU, and for devices that are emulated.
template <class Device>
class thread_transport final : public device_transport {
public:
  /// `device` outlives it.
  thread_transport(Device& device, std::shared_ptr<ops::thread_group> group,
                   std::int32_t rank)
      : device_(device), group_(std::move(group)), rank_(rank) {
    // nop
  }

  void gather(const float* own, std::int64_t n, float* all) override {
    move(own, 0, n, all);
  }

  void exchange(const float* own, std::int64_t n, float* parts) override {
    move(own, rank_ * n, n, parts);
  }

  bool waits() const override {
    return true;
  }

private:
  /// to[r * n + i] = what rank r shows at first + i.
  void move(const float* own, std::int64_t first, std::int64_t n, float* to) {
    device_.wait();
    group_->shown[static_cast<std::size_t>(rank_)] = own;
    group_->meet();
    for (std::int32_t r = 0; r < group_->size(); ++r) {
      const auto* from = static_cast<const float*>(
                             group_->shown[static_cast<std::size_t>(r)]) +
                         first;
      if (from != to + r * n)
        device_.copy_within(to + r * n, from,
                            static_cast<std::size_t>(n) * sizeof(float));
    }
    device_.wait();
    group_->meet(); // all have read
  }

  Device& device_;
  std::shared_ptr<ops::thread_group> group_;
  std::int32_t rank_;
};

} // namespace troupe::cuda
