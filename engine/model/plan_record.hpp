#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/runner.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace troupe::model {

/// A plan on its way from rank 0 to the others, which run the same program: the
/// lengths of its lists, and their numbers, as this machine has them. `out`
/// keeps its memory.
void encode(const engine::step_plan& plan, std::vector<std::byte>& out);

/// Errors: it is none (invalid_argument).
result<engine::step_plan> decode_step_plan(std::span<const std::byte> from);

} // namespace troupe::model
