#pragma once

#include "autoscaler/policy/scaling_step.hpp"

namespace troupe::autoscaler {

/// Ray Serve's policy by number of requests (its default): the load over the
/// set-point is the number of replicas that is wanted. Pure.
scaling_decision ongoing_requests(const scaling_options&, const scaling_state&,
                                  const scaling_view&, time_point now);

} // namespace troupe::autoscaler
