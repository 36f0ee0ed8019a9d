#pragma once

#include <chrono>
#include <cstdint>

namespace troupe::router {

/// How fast a replica computes, as it says itself with its tokens: the time of
/// one step of a certain size. What a choice spends there would not do: that is
/// longer where much waits, on the fastest machine too.
class replica_pace {
public:
  using time_point = std::chrono::steady_clock::time_point;

  /// `step_us` = 0 says nothing.
  void told(std::uint32_t step_us, time_point now) {
    if (step_us == 0)
      return;
    step_us_ = step_us;
    told_at_ = now;
  }

  /// Microseconds; 0 = not known, and again half a minute after the last word:
  /// one that was slow has to be tried again.
  std::uint32_t step_us(time_point now) const {
    return now - told_at_ > forgotten_after ? 0 : step_us_;
  }

private:
  static constexpr std::chrono::seconds forgotten_after{30};

  std::uint32_t step_us_ = 0;
  time_point told_at_;
};

/// How many times slower than the fastest it is, from 1 to 8. Within three
/// times it is noise, and an unknown pace is none: 1.
double slowness_of(std::uint32_t step_us, std::uint32_t fastest_us);

} // namespace troupe::router
