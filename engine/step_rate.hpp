#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>

namespace troupe::engine {

/// How many rows an engine computes in a second of steps: the rows over the
/// time of the steps that made them, in which both fade with the time that
/// steps took since (a second's worth counts 1/e after two more). What happens
/// between steps does not count, so an idle engine keeps its rate.
class step_rate {
public:
  void step(std::uint64_t rows, std::chrono::duration<double> time) {
    const double kept = std::exp(-time.count() / memory_s);
    rows_ = rows_ * kept + static_cast<double>(rows);
    seconds_ = seconds_ * kept + time.count();
  }

  /// 0 before the first step.
  double per_second() const {
    return seconds_ > 0 ? rows_ / seconds_ : 0;
  }

private:
  static constexpr double memory_s = 2;

  double rows_ = 0;
  double seconds_ = 0;
};

} // namespace troupe::engine
