#include "autoscaler/policy/schedule.hpp"

#include <algorithm>

namespace troupe::autoscaler {

namespace {

constexpr std::int64_t day = 24 * 60;
constexpr std::int64_t week = 7 * day;
constexpr std::int64_t first_of_1970 = 3 * day; // a Thursday

/// `minute` of a week that begins on Monday.
bool holds(const config::scheduled_minimum& span, std::int64_t minute) {
  std::int64_t length = span.to_minute - std::int64_t{span.from_minute};
  if (length <= 0)
    length += day;
  for (std::int64_t on = 0; on < 7; ++on) {
    if ((span.days >> on & 1u) == 0)
      continue;
    auto since = (minute - on * day - span.from_minute + week) % week;
    if (since < length)
      return true;
  }
  return false;
}

} // namespace

std::uint32_t
scheduled_minimum(const std::vector<config::scheduled_minimum>& spans,
                  std::int32_t utc_offset_minutes,
                  std::chrono::system_clock::time_point now) {
  auto minutes =
      std::chrono::floor<std::chrono::minutes>(now.time_since_epoch()).count() +
      utc_offset_minutes;
  auto minute = ((minutes + first_of_1970) % week + week) % week;
  std::uint32_t out = 0;
  for (const auto& span : spans)
    if (holds(span, minute))
      out = std::max(out, span.min_replicas);
  return out;
}

} // namespace troupe::autoscaler
