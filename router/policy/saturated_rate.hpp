#pragma once

#include <chrono>
#include <optional>

namespace troupe::router {

/// How much work a second the replicas of a model do for a router while its
/// choices wait for room there: only then is what they do all that they can. A
/// time of three seconds in which nothing came is an outage, and no measure.
class saturated_rate {
public:
  using time_point = std::chrono::steady_clock::time_point;

  /// So much was done (`work_of`); `waits`: there are choices that wait.
  void note(double work, bool waits, time_point now);

  /// Nothing until there is a second of it, and again ten minutes after the
  /// last.
  std::optional<double> value(time_point now) const;

private:
  double work_ = 0;  // of late: it fades in five seconds
  double spent_ = 0; // seconds
  bool waited_ = false;
  time_point last_{};
  time_point measured_{};
};

} // namespace troupe::router
