#include "router/policy/replica_health.hpp"

#include <algorithm>

namespace troupe::router {

void replica_health::failed(time_point now) {
  constexpr std::uint32_t failures_max = 2;
  failures_ = std::min(failures_ + 1, failures_max);
  if (failures_ < failures_max || state_ == state::left_out)
    return;
  state_ = state::left_out;
  pause_ = std::clamp(pause_ * 2, pause_min, pause_max);
  until_ = now + pause_;
}

void replica_health::tick(time_point now) {
  if (state_ == state::left_out && until_ <= now)
    state_ = state::probed;
}

} // namespace troupe::router
