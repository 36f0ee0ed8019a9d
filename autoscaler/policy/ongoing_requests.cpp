#include "autoscaler/policy/ongoing_requests.hpp"

#include <cmath>
#include <fmt/format.h>

namespace troupe::autoscaler {

scaling_decision ongoing_requests(const scaling_options& options,
                                  const scaling_state& state,
                                  const scaling_view& view, time_point now) {
  auto tenths = [](double x) { return std::round(x * 10) / 10; };
  replica_wish wish;
  wish.replicas =
      (view.running + view.queued) / options.target_ongoing_requests;
  wish.load = fmt::format("{:g} running + {:g} queued", tenths(view.running),
                          tenths(view.queued));
  wish.each = fmt::format("{:g}", options.target_ongoing_requests);
  return step_towards(wish, options, state, view, now);
}

} // namespace troupe::autoscaler
