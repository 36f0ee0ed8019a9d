#include "engine/draw_planner.hpp"

#include "engine/sampling/philox.hpp"

#include <algorithm>

namespace troupe::engine {

using ops::draw_plan;
using ops::draw_row;
using ops::logit_change;

namespace {

bool repeats_count(const sampling_params& params) {
  return params.repetition_penalty != 1.0f;
}

bool times_count(const sampling_params& params) {
  return params.frequency_penalty != 0 || params.presence_penalty != 0;
}

} // namespace

draw_planner::draw_planner(std::int32_t vocabulary)
    : places_(static_cast<std::size_t>(vocabulary)) {
  // nop
}

void draw_planner::add_draw(const sampling::draw_input& in,
                            std::optional<std::int32_t> drawn_by) {
  const sampling_params& params = in.params;
  draw_row row;
  row.inverse = params.temperature == 0 ? 0 : 1.0 / params.temperature;
  row.fraction = sampling::uniform(
      params.seed, params.choice,
      static_cast<std::uint32_t>(in.prompt.size() + in.output.size()) +
          (drawn_by ? 1u : 0u));
  row.min_p = params.min_p;
  row.top_p = params.top_p;
  row.top_k = params.top_k;
  row.repetition_penalty = params.repetition_penalty;
  row.frequency_penalty = params.frequency_penalty;
  row.presence_penalty = params.presence_penalty;
  row.best = params.logprobs;
  first_ = plan_.changes.size();
  const bool has_room = add_changes(in, drawn_by);
  for (std::size_t i = first_; i < plan_.changes.size(); ++i)
    if (const auto id = plan_.changes[i].id; id >= 0)
      places_[static_cast<std::size_t>(id)] = 0;
  if (!has_room || row.best > draw_row::best_max) {
    plan_.changes.resize(first_);
    row.by_host = 1;
  }
  row.first_change = static_cast<std::int32_t>(first_);
  row.changes = static_cast<std::int32_t>(plan_.changes.size() - first_);
  plan_.rows.push_back(row);
}

void draw_planner::add_score(token_id token, std::int32_t best) {
  draw_row row;
  row.scored = token;
  row.best = best;
  row.by_host = best > draw_row::best_max ? 1 : 0;
  plan_.rows.push_back(row);
}

bool draw_planner::has_all() const {
  return std::all_of(plan_.rows.begin(), plan_.rows.end(),
                     [](auto& row) { return row.by_host == 0; });
}

/// Those of sampling::logit_stages. False if the plan cannot hold them.
bool draw_planner::add_changes(const sampling::draw_input& in,
                               std::optional<std::int32_t> drawn_by) {
  const sampling_params& params = in.params;
  for (auto [id, bias] : params.logit_bias) {
    logit_change& change = change_of(id);
    if (change.what & logit_change::is_biased)
      return false; // the second is added to what the first left
    change.what |= logit_change::is_biased;
    change.bias = bias;
  }
  if (repeats_count(params))
    for (auto tokens : {in.prompt, in.output})
      for (token_id id : tokens)
        change_of(id).what |= logit_change::is_repeated;
  if (times_count(params))
    for (token_id id : in.output) {
      logit_change& change = change_of(id);
      change.what |= logit_change::is_penalised;
      ++change.times;
    }
  if (in.output.size() + (drawn_by ? 1 : 0) < params.min_tokens)
    for (auto tokens : {in.eos_ids, std::span{params.stop_token_ids}})
      for (token_id id : tokens)
        change_of(id).what |= logit_change::is_masked;
  if (drawn_by)
    add_drawn(params, *drawn_by);
  return plan_.changes.size() <= draw_plan::changes_max;
}

void draw_planner::add_drawn(const sampling_params& params,
                             std::int32_t drawn_by) {
  logit_change change;
  change.id = -1 - drawn_by;
  change.times = 1;
  if (repeats_count(params))
    change.what |= logit_change::is_repeated;
  if (times_count(params))
    change.what |= logit_change::is_penalised;
  if (change.what != 0)
    plan_.changes.push_back(change);
}

logit_change& draw_planner::change_of(token_id id) {
  std::int32_t& place = places_[static_cast<std::size_t>(id)];
  if (place == 0) {
    logit_change change;
    change.id = id;
    plan_.changes.push_back(change);
    place = static_cast<std::int32_t>(plan_.changes.size());
  }
  return plan_.changes[static_cast<std::size_t>(place - 1)];
}

} // namespace troupe::engine
