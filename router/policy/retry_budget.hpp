#pragma once

#include <chrono>
#include <optional>

namespace troupe::router {

/// How often choices of a model may be sent again before they have given a
/// token: a fifth as often as choices are sent for the first time, and a few a
/// second, saved up to a bound. Without it replicas in trouble would be kept
/// there by repetitions. (After the retry budgets of Finagle and Envoy.)
class retry_budget {
public:
  using time_point = std::chrono::steady_clock::time_point;

  static constexpr double saved_max = 256;
  static constexpr double per_sending = 0.2;
  static constexpr double per_second = 32;

  /// A choice is sent for the first time.
  void sent(time_point now);

  /// Takes one repetition, if there is one.
  bool take(time_point now);

  /// When there is one; nothing = there is now.
  std::optional<time_point> next(time_point now) const;

private:
  double saved_at(time_point now) const;

  double saved_ = saved_max;
  time_point at_{};
};

} // namespace troupe::router
