#include "router/policy/replica_pace.hpp"

#include <algorithm>

namespace troupe::router {

namespace {

constexpr double noise = 3;
constexpr double slowness_max = 8;

} // namespace

double slowness_of(std::uint32_t step_us, std::uint32_t fastest_us) {
  if (step_us == 0 || fastest_us == 0)
    return 1;
  auto times = static_cast<double>(step_us) / fastest_us;
  return times <= noise ? 1 : std::min(times, slowness_max);
}

} // namespace troupe::router
