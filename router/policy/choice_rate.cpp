#include "router/policy/choice_rate.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::router {

namespace {

constexpr double fading_s = 10;
constexpr double spent_min_s = 1;
constexpr std::chrono::seconds forgotten_after{30};
constexpr double prompt_share = 1. / 8;

} // namespace

void choice_rate::note(double work, std::chrono::duration<double> spent,
                       time_point now) {
  auto gone = std::chrono::duration<double>(now - last_).count();
  auto kept = std::exp(-std::max(gone, 0.) / fading_s);
  work_ = work_ * kept + work;
  spent_ = spent_ * kept + std::max(spent.count(), 0.);
  last_ = now;
}

std::optional<double> choice_rate::value(time_point now) const {
  if (spent_ < spent_min_s || now - last_ > forgotten_after)
    return std::nullopt;
  return work_ / spent_;
}

double work_of(std::uint64_t prompt_tokens, std::uint64_t output_tokens) {
  return static_cast<double>(output_tokens) +
         prompt_share * static_cast<double>(prompt_tokens);
}

} // namespace troupe::router
