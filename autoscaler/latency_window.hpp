#pragma once

#include "autoscaler/policy/scaling_step.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace troupe::autoscaler {

/// Times that routers saw of late, of one kind and one model. Routers tell how
/// many there were of each size (protocol::latency_places) since they began.
/// Bounded: a slot a second, and a count for each router.
class latency_window {
public:
  static constexpr std::chrono::seconds length{15};
  static constexpr std::uint64_t samples_min = 20;

  /// Late ones are the caller's to drop. The first word of a router's life says
  /// where to count from.
  void hear(const std::string& router, std::uint64_t incarnation,
            const std::vector<std::uint64_t>& counts, time_point now);

  /// It is gone; what it said stays in the window.
  void forget(const std::string& router);

  /// Nothing that comes before `when` counts.
  void begin_anew(time_point when);

  /// The time that this share of them did not exceed; nothing while there are
  /// fewer than `samples_min`.
  std::optional<double> quantile(double share, time_point now) const;

private:
  using counts = std::vector<std::uint64_t>; ///< by place

  struct router {
    std::uint64_t incarnation = 0;
    counts said;
  };

  struct slot {
    time_point from;
    counts more;
  };

  std::map<std::string, router> routers_;
  std::deque<slot> slots_; ///< by time
  time_point from_{};
};

} // namespace troupe::autoscaler
