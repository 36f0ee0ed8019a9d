#pragma once

#include "engine/codec/error.hpp"
#include "engine/ops/draw.hpp"
#include "engine/ops/step_gaps.hpp"
#include "engine/sampling/sampling_params.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace troupe::engine {

/// Stands for a token that the host has not seen: what row `logit_row` of the
/// logits of the step before draws.
constexpr token_id drawn_by(std::size_t logit_row) {
  return -1 - static_cast<token_id>(logit_row);
}

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

  /// Whether tokens can be drawn where the logits are: then `submit_drawn` and
  /// `collect_drawn` stand for the other two.
  virtual bool draws() const {
    return false;
  }

  /// Whether a plan may be submitted before the one before was collected (two
  /// at most are under way), with tokens that stand for what that one draws
  /// (`drawn_by`).
  virtual bool runs_ahead() const {
    return false;
  }

  /// `draws` has a row for each row of logits.
  virtual void submit_drawn(const step_plan& plan,
                            [[maybe_unused]] const ops::draw_plan& draws) {
    submit(plan);
  }

  /// What was drawn of the oldest plan that was submitted, row by row. Valid
  /// until the next call of this.
  virtual std::span<const ops::drawn_row> collect_drawn() {
    return {};
  }

  /// One row of the logits, after `collect_drawn` and before another plan is
  /// submitted; until the next call.
  virtual std::span<const float>
  logits_of([[maybe_unused]] std::size_t logit_row) {
    return {};
  }

  virtual std::int32_t vocabulary() const = 0;

  /// Bytes of weights that all passes read so far.
  virtual std::uint64_t weight_bytes_read() const = 0;

  /// Between steps that drew on a device (ops::backend::gaps).
  virtual ops::step_gaps gaps() const {
    return {};
  }
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
