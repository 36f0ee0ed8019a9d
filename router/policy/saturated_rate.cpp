#include "router/policy/saturated_rate.hpp"

#include <cmath>

namespace troupe::router {

namespace {

constexpr double memory_s = 5;
constexpr double enough_s = 1;
constexpr std::chrono::minutes kept{10};
constexpr std::chrono::seconds outage{3};

} // namespace

void saturated_rate::note(double work, bool waits, time_point now) {
  if (waited_ && waits && now - last_ < outage) {
    std::chrono::duration<double> spent = now - last_;
    auto left = std::exp(-spent.count() / memory_s);
    work_ = work_ * left + work;
    spent_ = spent_ * left + spent.count();
    measured_ = now;
  }
  waited_ = waits;
  last_ = now;
}

std::optional<double> saturated_rate::value(time_point now) const {
  if (spent_ < enough_s || work_ <= 0 || now - measured_ > kept)
    return std::nullopt;
  return work_ / spent_;
}

} // namespace troupe::router
