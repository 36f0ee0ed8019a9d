#pragma once

#include "bench/policies/load.hpp"
#include "bench/policies/oracle.hpp"
#include "bench/policies/replica.hpp"
#include "config/autoscaling_config.hpp"

#include <cstdint>
#include <optional>
#include <vector>

namespace troupe::bench {

/// One run.
struct scenario {
  replica_options replica;
  std::uint32_t routers = 1;
  bool random_choice = false; ///< instead of `rule`
  protocol::choice_rule rule;
  /// Of the output that a router expects of a choice; the real one takes what
  /// the client allows, 256 at most, and lengths may be scaled.
  std::uint32_t expected_output = 256;
  std::uint32_t choices_max = 0; ///< max_ongoing_requests; 0 = no bound

  std::uint32_t replicas = 1; ///< at the begin
  std::uint32_t replicas_max = 32;
  double birth_s = 0.9;
  /// Who sets the number; neither = nobody.
  std::optional<config::autoscaling_config> scaling;
  std::vector<planned_target> planned;
  /// Between two reports of a replica or router at least, at most.
  double report_min_s = 0.1;
  double report_max_s = 1;

  double hop_s = 0.001; ///< a message's way
  /// The objective: to the first token this and so many times what the prompt
  /// takes alone, nothing of it cached; and on average to each token after it.
  double first_token_max_s = 1;
  double first_token_times = 2;
  double next_token_max_s = 0.2;
  std::uint64_t seed = 1;
};

/// What became of a request.
struct request_outcome {
  double at_s = 0;
  double first_token_s = -1; ///< after it came; below 0 = never
  double end_s = -1;
  std::uint32_t tokens = 0;
  std::uint32_t cached_tokens = 0;
  std::uint32_t endings = 0; ///< one each, if all is well
  bool failed = false;
};

struct fleet_size {
  double at_s = 0;
  std::uint32_t target = 0;
  std::uint32_t ready = 0;
};

struct run_outcome {
  std::vector<request_outcome> requests;
  std::vector<fleet_size> sizes;
  double replica_hours = 0; ///< processes, until the load's end
  std::uint64_t preemptions = 0;
  std::uint64_t events = 0;
};

/// Simulates until every request has ended. Deterministic.
run_outcome simulate(const load&, const scenario&);

} // namespace troupe::bench
