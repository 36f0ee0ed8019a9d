#pragma once

#include "engine/ops/step_gaps.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace troupe::cuda {

/// Measures the gaps between steps that draw, by the device's time. A step is
/// looked at when it has been waited for, so nothing waits for the clock.
template <class Device>
class step_clock {
public:
  explicit step_clock(Device& device)
      : device_(device), marks_{mark{device}, mark{device}, mark{device},
                                mark{device}} {
    // nop
  }

  /// What follows is the first kernel of a step.
  void begin() {
    auto& now = marks_[++step_ % marks_.size()];
    now.step = step_;
    now.is_drawn = false;
    device_.record(now.begin);
  }

  /// The last kernel of the step was launched. Gives the step's number.
  std::uint64_t end() {
    auto& now = marks_[step_ % marks_.size()];
    now.is_drawn = true;
    device_.record(now.end);
    return step_;
  }

  /// The device has done the step.
  void done(std::uint64_t step) {
    const auto& now = marks_[step % marks_.size()];
    const auto& before = marks_[(step + marks_.size() - 1) % marks_.size()];
    if (step == 0 || now.step != step || before.step + 1 != step ||
        !before.is_drawn)
      return;
    ++gaps_.count;
    gaps_.seconds += device_.seconds_between(before.end, now.begin);
  }

  ops::step_gaps gaps() const {
    return gaps_;
  }

private:
  struct mark {
    explicit mark(Device& device) : begin(device), end(device) {
      // nop
    }
    typename Device::event begin, end;
    std::uint64_t step = 0;
    bool is_drawn = false;
  };

  Device& device_;
  /// Two steps are under way, and one before them is looked at.
  std::array<mark, 4> marks_;
  std::uint64_t step_ = 0;
  ops::step_gaps gaps_;
};

} // namespace troupe::cuda
