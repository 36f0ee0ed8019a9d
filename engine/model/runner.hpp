#pragma once

#include "engine/codec/error.hpp"
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
};

/// Executes plans. Two halves, so that a GPU can work on one step while the next
/// is planned; the CPU does its work in `collect`.
class model_runner {
public:
  virtual ~model_runner() = default;

  virtual void submit(const step_plan&) = 0;

  /// Logits of the submitted plan, [logit_rows][vocabulary], raw. Valid until
  /// the next submit.
  virtual std::span<const float> collect() = 0;

  virtual std::int32_t vocabulary() const = 0;

  /// Bytes of weights that all passes read so far.
  virtual std::uint64_t weight_bytes_read() const = 0;
};

} // namespace troupe::engine
