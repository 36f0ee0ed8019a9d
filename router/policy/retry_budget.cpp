#include "router/policy/retry_budget.hpp"

#include <algorithm>

namespace troupe::router {

void retry_budget::sent(time_point now) {
  saved_ = std::min(saved_at(now) + per_sending, saved_max);
  at_ = now;
}

bool retry_budget::take(time_point now) {
  saved_ = saved_at(now);
  at_ = now;
  if (saved_ < 1)
    return false;
  saved_ -= 1;
  return true;
}

std::optional<retry_budget::time_point>
retry_budget::next(time_point now) const {
  auto lacking = 1 - saved_at(now);
  if (lacking <= 0)
    return std::nullopt;
  return now + std::chrono::ceil<std::chrono::milliseconds>(
                   std::chrono::duration<double>{lacking / per_second});
}

double retry_budget::saved_at(time_point now) const {
  std::chrono::duration<double> passed = now - std::max(at_, time_point{});
  if (at_ == time_point{})
    return saved_;
  return std::min(saved_ + passed.count() * per_second, saved_max);
}

} // namespace troupe::router
