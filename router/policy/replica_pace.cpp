#include "router/policy/replica_pace.hpp"

#include <algorithm>

namespace troupe::router {

namespace {

constexpr double noise = 3;
constexpr double slowness_max = 8;

std::uint32_t least(std::uint32_t a, std::uint32_t b) {
  return a == 0 || b == 0 ? std::max(a, b) : std::min(a, b);
}

double slowness_of(std::uint32_t step_us, std::uint32_t fastest_us) {
  if (step_us == 0 || fastest_us == 0)
    return 1;
  auto times = static_cast<double>(step_us) / fastest_us;
  return times <= noise ? 1 : std::min(times, slowness_max);
}

} // namespace

step_times fastest_of(const step_times& a, const step_times& b) {
  return {least(a.few_us, b.few_us), least(a.many_us, b.many_us)};
}

double slowness_of(const step_times& of, const step_times& fastest) {
  return std::max(slowness_of(of.few_us, fastest.few_us),
                  slowness_of(of.many_us, fastest.many_us));
}

} // namespace troupe::router
