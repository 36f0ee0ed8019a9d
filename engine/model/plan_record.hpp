#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/runner.hpp"

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace troupe::model {

/// What the ranks do in a step.
struct step_record {
  engine::step_plan plan;
  /// What is drawn of its rows with logits, which all ranks have; nothing: they
  /// come to the host.
  std::optional<ops::draw_plan> draws;
};

/// A plan on its way from rank 0 to the others, which run the same program: the
/// lengths of its lists, and what they hold, as this machine has it. No
/// `draws`: nothing is drawn. `out` keeps its memory.
void encode(const engine::step_plan& plan, const ops::draw_plan* draws,
            std::vector<std::byte>& out);

/// Errors: it is none (invalid_argument).
result<step_record> decode_step(std::span<const std::byte> from);

} // namespace troupe::model
