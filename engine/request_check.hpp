#pragma once

#include "engine/engine.hpp"

#include <optional>
#include <span>

namespace troupe::engine {

/// What a request is measured by.
struct request_bounds {
  std::int32_t vocabulary = 0;
  std::uint32_t max_model_len = 0; ///< tokens of prompt and output
  std::uint32_t kv_positions = 0;  ///< positions that the KV pool can hold
};

/// Says what is wrong with a request, if anything. Pure; any thread.
std::optional<error> find_fault(const request&, const request_bounds&);

/// The first id that is not one of the vocabulary, if any; `where` names the
/// list.
std::optional<error> find_foreign_id(std::span<const token_id> ids,
                                     const char* where,
                                     std::int32_t vocabulary);

/// What is reported of a choice that never got in.
output refusal_of(std::uint64_t id, error why);

/// Why a choice is refused when so many wait already.
error full_queue(std::uint32_t max_waiting);

} // namespace troupe::engine
