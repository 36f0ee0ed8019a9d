#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace troupe::router {

/// How fast choices are served: work done per second that a choice spent at a
/// replica, waiting or not.
class choice_rate {
public:
  using time_point = std::chrono::steady_clock::time_point;

  /// A choice was there for so long since its sending or its last news, and had
  /// so much done (`work_of`).
  void note(double work, std::chrono::duration<double> spent, time_point now);

  /// Nothing until there is a second of it, and again half a minute after the
  /// last.
  std::optional<double> value(time_point now) const;

private:
  double work_ = 0;  // of late: it fades in ten seconds
  double spent_ = 0; // seconds
  time_point last_;
};

/// Output tokens; prompt tokens count as an eighth, since they are computed
/// together (the ratio of docs/benchmarks.md, "First light").
double work_of(std::uint64_t prompt_tokens, std::uint64_t output_tokens);

} // namespace troupe::router
