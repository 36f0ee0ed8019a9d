#pragma once

#include "engine/codec/error.hpp"
#include "engine/ops/draw.hpp"
#include "engine/sampling/sampling_params.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace troupe::engine {

/// The rows of one forward pass, as the scheduler planned them. Row r is token
/// `tokens[r]` at `positions[r]` of sequence `sequences[r]` (an index into
/// `tables`). Rows of one sequence stand together in ascending positions.
struct step_plan {
  std::vector<token_id> tokens;
  std::vector<std::int32_t> positions;
  std::vector<std::int32_t> sequences;
  /// KV block ids per sequence, enough for its last row.
  std::vector<std::vector<std::int32_t>> tables;
  /// Rows whose logits are wanted, ascending.
  std::vector<std::int32_t> logit_rows;
  /// If the runner has roles: so many rows come first that stand at prompt
  /// positions; all others are output. A sequence with rows of both is two
  /// here, with one table.
  std::int32_t prompt_rows = 0;
};

/// Executes plans. Two halves, so that a GPU can work on one step while the
/// next is planned; the CPU does its work in `collect`.
class model_runner {
public:
  virtual ~model_runner() = default;

  virtual void submit(const step_plan&) = 0;

  /// Logits of the submitted plan, [logit_rows][vocabulary], raw. Valid until
  /// the next submit.
  virtual std::span<const float> collect() = 0;

  /// Whether a position's bits depend on its role, prompt or output.
  virtual bool has_roles() const {
    return false;
  }

  /// Whether tokens can be drawn where the logits are: then `collect_drawn`
  /// stands for `collect`.
  virtual bool draws() const {
    return false;
  }

  /// What the plan draws of the submitted plan's logits, row by row. Valid
  /// until the next submit.
  virtual std::span<const ops::drawn_row>
  collect_drawn([[maybe_unused]] const ops::draw_plan& plan) {
    return {};
  }

  /// One row of the logits, after `collect_drawn`; until the next call.
  virtual std::span<const float>
  logits_of([[maybe_unused]] std::size_t logit_row) {
    return {};
  }

  virtual std::int32_t vocabulary() const = 0;

  /// Bytes of weights that all passes read so far.
  virtual std::uint64_t weight_bytes_read() const = 0;
};

/// A sequence that is computed in one step.
struct whole_sequence {
  std::span<const token_id> tokens; ///< one at least
  /// Where the second of two texts begins; 0: there is one text.
  std::uint32_t second_text = 0;
};

/// Makes one vector of every sequence.
class pooling_runner {
public:
  virtual ~pooling_runner() = default;

  /// [sequences][size()]. Valid until the next call.
  virtual std::span<const float>
  run(std::span<const whole_sequence> sequences) = 0;

  virtual std::int32_t vocabulary() const = 0;
  virtual std::int32_t size() const = 0; ///< numbers of a vector

  /// Bytes of weights that all passes read so far.
  virtual std::uint64_t weight_bytes_read() const = 0;
};

} // namespace troupe::engine
