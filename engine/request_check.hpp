#pragma once

#include "engine/engine.hpp"

#include <optional>

namespace troupe::engine {

/// What a request is measured by.
struct request_bounds {
  std::int32_t vocabulary = 0;
  std::uint32_t max_model_len = 0; ///< tokens of prompt and output
  std::uint32_t kv_positions = 0;  ///< positions that the KV pool can hold
};

/// Says what is wrong with a request, if anything. Pure; any thread.
std::optional<error> find_fault(const request&, const request_bounds&);

} // namespace troupe::engine
