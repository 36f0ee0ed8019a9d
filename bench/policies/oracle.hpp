#pragma once

#include "bench/policies/load.hpp"
#include "bench/policies/replica.hpp"

#include <cstdint>
#include <vector>

namespace troupe::bench {

/// How an oracle sizes the fleet.
struct oracle_options {
  double window_s = 15;    ///< work may take so long after it came
  double utilization = .8; ///< of a replica's time that is planned to be used
};

/// From a time on so many replicas.
struct planned_target {
  double from_s = 0;
  std::uint32_t replicas = 1;
};

/// The fleet of one who knows all requests, their answers' lengths and what a
/// cache without a bound would hit: at every second as many replicas as the
/// work of the window before it needs, each begun `birth_s` ahead, given up at
/// once.
std::vector<planned_target> plan_fleet(const load&, const replica_options&,
                                       const oracle_options&, double birth_s,
                                       std::uint32_t replicas_max);

/// Seconds of a replica that each request asks for, as the oracle counts.
std::vector<double> work_of(const load&, const replica_options&);

} // namespace troupe::bench
