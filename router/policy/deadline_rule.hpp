#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace troupe::router {

/// What is known when a request asks to be taken. Work as by `work_of`.
struct deadline_view {
  double ahead = 0;            ///< work that waits and goes first
  std::optional<double> drain; ///< work a second of all that waits
  double service_s = 0;        ///< of its longest choice; 0 = not known
  std::chrono::duration<double> left{0}; ///< until its deadline
};

/// Why it cannot be taken.
struct too_late {
  std::chrono::duration<double> expected{0}; ///< until its end
  std::uint32_t retry_after_s = 1;           ///< 1 to 60
};

/// Nothing if the request can be served by its deadline, as far as anybody
/// knows: a rate that was not measured refuses nobody. Pure.
///
/// Under steady overload the queue grows until whoever is just taken is just in
/// time; since estimates err, a quarter of the time is kept back.
std::optional<too_late> deadline_rule(const deadline_view&);

/// The same when it is about to be sent, with nothing ahead and nothing kept
/// back: work that comes too late is not begun.
bool ends_too_late(const deadline_view&);

} // namespace troupe::router
