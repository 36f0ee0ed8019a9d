#pragma once

#include "engine/ops/draw.hpp"
#include "engine/sampling/logit_stages.hpp"

#include <cstdint>
#include <optional>
#include <vector>

namespace troupe::engine {

/// Says a step's draws to a runner that draws itself (ops::drawer). Rows that
/// it could not do are left to the host: more log-probabilities than
/// ops::draw_row::best_max, more changed logits than a plan holds, an id that
/// has several biases.
class draw_planner {
public:
  explicit draw_planner(std::int32_t vocabulary);

  void clear() {
    plan_.clear();
  }

  /// The next token of a choice; `in.logits` is not looked at. If `drawn_by` is
  /// given, its output has one token more, which that row of the draw before
  /// gives.
  void add_draw(const sampling::draw_input& in,
                std::optional<std::int32_t> drawn_by = {});

  /// Log-probabilities of a token that is known: as
  /// sampling::sampler::log_probabilities.
  void add_score(token_id token, std::int32_t best);

  const ops::draw_plan& plan() const {
    return plan_;
  }

  /// Whether all rows are the runner's.
  bool has_all() const;

private:
  bool add_changes(const sampling::draw_input& in,
                   std::optional<std::int32_t> drawn_by);
  void add_drawn(const sampling_params& params, std::int32_t drawn_by);
  ops::logit_change& change_of(token_id id);

  ops::draw_plan plan_;
  std::size_t first_ = 0;            ///< change of the row that is added
  std::vector<std::int32_t> places_; ///< by id: its change + 1, 0: none
};

} // namespace troupe::engine
