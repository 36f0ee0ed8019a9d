#pragma once

#include "cuda/device_transport.hpp"
#include "engine/ops/communicator.hpp"

#include <cstddef>
#include <vector>

namespace troupe::cuda {

/// Through the hosts of the ranks, whose processes may be several: for devices
/// that are emulated. Everybody gets everything, and host and device wait for
/// each other.
template <class Device>
class host_transport final : public device_transport {
public:
  /// `device` and `hosts` outlive it.
  host_transport(Device& device, ops::communicator& hosts)
      : device_(device), hosts_(hosts) {
    // nop
  }

  void gather(const float* own, std::int64_t n, float* all) override {
    show(own, n);
    device_.copy_in(all, all_.data(), all_.size() * sizeof(float));
  }

  void exchange(const float* own, std::int64_t n, float* parts) override {
    show(own, n * hosts_.size());
    const auto of_part = static_cast<std::size_t>(n) * sizeof(float);
    for (std::int64_t r = 0; r < hosts_.size(); ++r)
      device_.copy_in(parts + r * n,
                      all_.data() + (r * hosts_.size() + hosts_.rank()) * n,
                      of_part);
  }

  bool waits() const override {
    return true;
  }

private:
  /// all_[r * n + i] = what rank r shows at i.
  void show(const float* own, std::int64_t n) {
    const auto count = static_cast<std::size_t>(n);
    own_.resize(count);
    all_.resize(count * static_cast<std::size_t>(hosts_.size()));
    device_.copy_out(own_.data(), own, count * sizeof(float));
    hosts_.all_gather(own_.data(), 1, n, all_.data());
  }

  Device& device_;
  ops::communicator& hosts_;
  std::vector<float> own_, all_;
};

} // namespace troupe::cuda
