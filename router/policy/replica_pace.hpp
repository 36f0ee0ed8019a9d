#pragma once

#include <chrono>
#include <cstdint>

namespace troupe::router {

/// Times of a replica's steps in microseconds, of few rows and of many; 0 = not
/// known.
struct step_times {
  std::uint32_t few_us = 0;
  std::uint32_t many_us = 0;
};

/// How fast a replica computes, as it says itself with its tokens. What a
/// choice spends there would not do: that is longer where much waits, on the
/// fastest machine too.
class replica_pace {
public:
  using time_point = std::chrono::steady_clock::time_point;

  void told(const step_times& what, time_point now) {
    if (what.few_us == 0 && what.many_us == 0)
      return;
    told_ = what;
    told_at_ = now;
  }

  /// Nothing is known again half a minute after the last word: one that was
  /// slow has to be tried again.
  step_times value(time_point now) const {
    return now - told_at_ > forgotten_after ? step_times{} : told_;
  }

private:
  static constexpr std::chrono::seconds forgotten_after{30};

  step_times told_;
  time_point told_at_;
};

/// The least of each, where one is known.
step_times fastest_of(const step_times&, const step_times&);

/// How many times slower than the fastest it is, from 1 to 8, in steps of few
/// rows or of many. Up to three it is noise, and what is unknown is not
/// slow: 1.
double slowness_of(const step_times&, const step_times& fastest);

} // namespace troupe::router
