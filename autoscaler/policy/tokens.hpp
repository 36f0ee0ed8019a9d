#pragma once

#include "autoscaler/policy/scaling_step.hpp"

namespace troupe::autoscaler {

/// A model's work as the policy sees it.
struct token_work {
  /// Prompt and answer tokens that are to be computed for all that run, wait in
  /// an engine or have no replica yet; answers as long as they are usually.
  double tokens = 0;
  double requests = 0; ///< that they are for
  /// Tokens a second that a replica reaches; 0 = nobody has measured it yet.
  double rate = 0;
};

/// Policy by work: so many replicas that all work there is takes no more than
/// `queue_s` seconds, but no more than there are requests: none is computed by
/// two. Without a measured rate as `ongoing_requests`. Pure.
scaling_decision tokens(const token_work&, double queue_s,
                        const scaling_options&, const scaling_state&,
                        const scaling_view&, time_point now);

} // namespace troupe::autoscaler
