#pragma once

#include "engine/sampling/sampling_params.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::test {

/// What should go wrong in a replica, as its environment says (a deployment's
/// runtime_env.env_vars). Nothing set: nothing goes wrong.
struct fault_plan {
  /// FAULT_ABORT_PROMPT ("17,4711,23"): a step with rows of a choice whose
  /// prompt holds these ids in a row ends the process by SIGSEGV.
  std::vector<token_id> abort_prompt;
  /// FAULT_ABORT_BY=memory: or by taking memory until none is given.
  bool abort_by_memory = false;
  /// FAULT_ABORT_OUTPUT: not before such a choice has so many output tokens.
  std::uint32_t abort_output = 0;
  /// FAULT_HANG_FILE: the replica that finds this file before a step, and
  /// removes it, never makes another step.
  std::string hang_file;
  /// FAULT_RESUME, what is done wrongly to a choice that goes on here:
  /// "position": its random numbers are those of one position later;
  /// "penalties": they are forgotten;
  /// "repeat": its first new token is sent twice.
  std::string resume;
  /// FAULT_TALK: nothing is computed; see talking_engine.hpp.
  bool talks = false;
};

fault_plan plan_from_environment();

/// FAULT_VERSIONS_APART: what to add to the protocol version that the replica
/// speaks. Of the node's own environment: a deployment's comes too late.
std::uint32_t versions_apart();

} // namespace troupe::test
