#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace troupe::ops {

/// How a logit changes before the draw: what `what` names, in this order
/// (engine/sampling/logit_stages.hpp).
struct logit_change {
  static constexpr std::uint32_t is_biased = 1;
  static constexpr std::uint32_t is_repeated = 2;
  static constexpr std::uint32_t is_penalised = 4;
  static constexpr std::uint32_t is_masked = 8;

  /// Below 0, of a row's last change alone: -1 - r, what row r of the draw
  /// before gives. It says what that token changes (`times` is 1); another
  /// change that the id has gets it too.
  std::int32_t id = 0;
  std::uint32_t what = 0;
  float bias = 0;
  std::uint32_t times = 0; ///< in the output
};

/// What is drawn of a row of logits (engine/sampling/sampler.hpp says how).
struct draw_row {
  static constexpr std::int32_t best_max = 32;

  double inverse = 0; ///< 1 / temperature; 0: the best, of equal ones the first
  double fraction = 0; ///< the random number, [0, 1)
  double min_p = 0;
  double top_p = 1;
  std::int32_t top_k = 0; ///< 0: all
  float repetition_penalty = 1;
  float frequency_penalty = 0;
  float presence_penalty = 0;
  std::int32_t first_change = 0; ///< in draw_plan::changes, each id once
  std::int32_t changes = 0;
  std::int32_t mask = -1;   ///< in draw_plan::masks; -1: every id is allowed
  std::int32_t scored = -1; ///< an id: nothing is drawn, this one is scored
  /// Log-probabilities of the raw logits: -1 none, 0 that of the id that was
  /// drawn or scored, k the k best besides (best_max at most).
  std::int32_t best = -1;
  std::int32_t by_host = 0; ///< 1: this row is not for the backend
};

/// What is drawn of a step's rows of logits, in order.
struct draw_plan {
  static constexpr std::size_t changes_max = 64 << 10;

  std::vector<draw_row> rows;
  std::vector<logit_change> changes; ///< of all rows; changes_max at most
  /// Bits of ids, 32 a word, that may be drawn; a row's words together.
  std::vector<std::uint32_t> masks;

  void clear() {
    rows.clear();
    changes.clear();
    masks.clear();
  }
};

struct drawn_row {
  /// -1: nothing was drawn, since the row is the host's or holds what is no
  /// number.
  std::int32_t id = -1;
  float logprob = 0;
  std::vector<std::pair<std::int32_t, float>> best; ///< in order
};

/// Draws tokens where the logits are, so that they need not leave a GPU.
class drawer {
public:
  virtual ~drawer() = default;

  /// Begins to draw of each row of `logits`, [plan.rows.size()][cols], what the
  /// plan says, to the bit as engine/sampling does. The logits are afterwards
  /// what they were. At most two draws are under way.
  virtual void begin(float* logits, std::int64_t cols,
                     const draw_plan& plan) = 0;

  /// Waits for the older of the draws that are under way. Valid until the next
  /// call.
  virtual std::span<const drawn_row> end() = 0;
};

} // namespace troupe::ops
