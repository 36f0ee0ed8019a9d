#include "router/policy/rate_limit.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::router {

namespace {

// Time for so much to flow in.
std::chrono::milliseconds time_for(double amount, std::uint64_t per_minute) {
  auto minutes = amount / static_cast<double>(per_minute);
  return std::chrono::milliseconds{
      static_cast<std::int64_t>(std::ceil(std::max(minutes, 0.0) * 60'000))};
}

} // namespace

void rate_limit::change(std::uint64_t per_minute, time_point now) {
  if (per_minute == per_minute_)
    return;
  auto most = static_cast<double>(per_minute);
  left_ = per_minute_ == 0 ? most : std::min(left_at(now), most);
  at_ = now;
  per_minute_ = per_minute;
}

rate_limit::verdict rate_limit::take(std::uint64_t amount, time_point now) {
  if (per_minute_ == 0)
    return {true};
  auto wanted = static_cast<double>(amount);
  auto has = left_at(now);
  if (amount > per_minute_)
    return {false};
  if (has < wanted)
    return {false, time_for(wanted - has, per_minute_)};
  left_ = has - wanted;
  at_ = now;
  return {true};
}

void rate_limit::charge(std::uint64_t amount, time_point now) {
  if (per_minute_ == 0)
    return;
  left_ = std::max(left_at(now) - static_cast<double>(amount),
                   -static_cast<double>(per_minute_));
  at_ = now;
}

std::uint64_t rate_limit::left(time_point now) const {
  return static_cast<std::uint64_t>(std::max(left_at(now), 0.0));
}

std::chrono::milliseconds rate_limit::full_in(time_point now) const {
  if (per_minute_ == 0)
    return {};
  return time_for(static_cast<double>(per_minute_) - left_at(now), per_minute_);
}

double rate_limit::left_at(time_point now) const {
  auto most = static_cast<double>(per_minute_);
  if (at_ == time_point{})
    return left_;
  std::chrono::duration<double> passed = now - at_;
  return std::min(left_ + most * passed.count() / 60, most);
}

} // namespace troupe::router
