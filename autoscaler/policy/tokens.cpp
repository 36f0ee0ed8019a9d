#include "autoscaler/policy/tokens.hpp"

#include "autoscaler/policy/ongoing_requests.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace troupe::autoscaler {

scaling_decision tokens(const token_work& work, double queue_s,
                        const scaling_options& options,
                        const scaling_state& state, const scaling_view& view,
                        time_point now) {
  if (!(work.rate > 0))
    return ongoing_requests(options, state, view, now);
  replica_wish wish;
  auto each = work.rate * queue_s;
  wish.replicas = std::min(work.tokens / each, std::ceil(work.requests));
  wish.load = fmt::format("{:.0f} tokens to compute", work.tokens);
  wish.each =
      fmt::format("{:.0f} ({:.0f}/s for {:g} s)", each, work.rate, queue_s);
  return step_towards(wish, options, state, view, now);
}

} // namespace troupe::autoscaler
