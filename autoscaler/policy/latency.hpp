#pragma once

#include "autoscaler/policy/scaling_step.hpp"

#include <optional>

namespace troupe::autoscaler {

/// Set-points; at least one is there.
struct latency_goal {
  std::optional<double> first_token_s;
  std::optional<double> next_token_s;
};

/// What clients see since the number of replicas changed last.
struct latency_seen {
  std::optional<double> first_token_s; ///< p95; nothing = too few yet
  std::optional<double> next_token_s;  ///< likewise, between tokens
  double oldest_wait_s = 0; ///< of those that wait for their first token now
};

/// Policy by what clients see: as many replicas as it takes to keep the 95th
/// percentile of the time to the first token, or between tokens, at its
/// set-point. A change is waited for, and then measured anew. More by as much
/// as the time is above its set-point, twice as many at most, and no more than
/// there are requests, since none is computed by two; one less when there are
/// fewer requests than the others, or when it
/// is below half of it and the others can take what there is
/// (`ongoing_requests` knows), or when there is nothing to do. Pure.
scaling_decision latency(const latency_seen&, const latency_goal&,
                         const scaling_options&, const scaling_state&,
                         const scaling_view&, time_point now);

} // namespace troupe::autoscaler
