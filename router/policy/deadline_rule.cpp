#include "router/policy/deadline_rule.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::router {

namespace {

constexpr double usable = 0.75;
constexpr double retry_max_s = 60;

double seconds_of(double work, const std::optional<double>& rate) {
  return rate && *rate > 0 ? work / *rate : 0;
}

} // namespace

std::optional<too_late> deadline_rule(const deadline_view& view) {
  auto expected = seconds_of(view.ahead, view.drain) + view.service_s;
  auto allowed = view.left.count() * usable;
  if (expected <= allowed)
    return std::nullopt;
  too_late out;
  out.expected = std::chrono::duration<double>{expected};
  out.retry_after_s = static_cast<std::uint32_t>(
      std::clamp(std::ceil(expected - allowed), 1.0, retry_max_s));
  return out;
}

bool ends_too_late(const deadline_view& view) {
  return view.service_s > view.left.count();
}

} // namespace troupe::router
