#pragma once

#include "bench/policies/fleet.hpp"
#include "bench/policies/load.hpp"

#include <cstdint>
#include <string>

namespace troupe::bench {

/// The figures of one run.
struct summary {
  std::uint64_t requests = 0;
  std::uint64_t served = 0; ///< ended once, with all of their tokens
  std::uint64_t failed = 0;
  double first_token_p50_s = 0; ///< of all; failed ones count as the slowest
  double first_token_p95_s = 0;
  double first_token_p99_s = 0;
  double next_token_p95_s = 0; ///< average of a request, between two tokens
  double goodput = 0;          ///< share that kept the objective
  double replica_hours = 0;
  double replicas_mean = 0;
  std::uint32_t replicas_most = 0; ///< ready at a time
  double hits = 0;                 ///< share of all prompt tokens
  double hits_ideal = 0;           ///< of a cache without a bound
  /// A target that goes back within two minutes of a change.
  std::uint32_t flaps = 0;
  std::uint32_t changes = 0; ///< of the target
  // Of a load with a step; below 0 = it did not happen.
  double first_order_s = -1; ///< from the step to the first larger target
  /// Until as many are ready as on average in the second half of what follows.
  double followed_s = -1;
  /// Until the next 15 s in which nine of ten requests keep the objective.
  double recovered_s = -1;
  std::uint64_t preemptions = 0;
};

/// `step_s`: when the load's step is; below 0 = it has none.
summary summarise(const load&, const scenario&, const run_outcome&,
                  double step_s = -1);

/// As the members of a JSON object, without braces.
std::string to_json(const summary&);

} // namespace troupe::bench
