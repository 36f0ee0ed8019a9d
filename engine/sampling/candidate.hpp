#pragma once

#include "engine/sampling/sampling_params.hpp"

namespace troupe {

/// A candidate and its log-probability (natural, of the raw logits).
struct candidate {
  token_id id = 0;
  float logprob = 0;

  bool operator==(const candidate&) const = default;
};

} // namespace troupe
