#include "engine/sampling/logit_stages.hpp"

#include "engine/sampling/draw_math.hpp"

#include <array>
#include <limits>

namespace troupe::sampling {

namespace {

bool has_bias(const draw_input& in) {
  return !in.params.logit_bias.empty();
}

void add_bias(const draw_input& in, token_counts&, std::span<float> logits) {
  for (auto [id, bias] : in.params.logit_bias)
    logits[id] = biased(logits[id], bias);
}

bool has_repetition_penalty(const draw_input& in) {
  return in.params.repetition_penalty != 1.0f;
}

void penalise_repetition(const draw_input& in, token_counts& counts,
                         std::span<float> logits) {
  const float penalty = in.params.repetition_penalty;
  counts.add(in.prompt);
  counts.add(in.output);
  for (token_id id : counts.distinct())
    logits[id] = repeated(logits[id], penalty);
  counts.clear();
}

bool has_output_penalty(const draw_input& in) {
  return in.params.frequency_penalty != 0 || in.params.presence_penalty != 0;
}

void penalise_output(const draw_input& in, token_counts& counts,
                     std::span<float> logits) {
  counts.add(in.output);
  for (token_id id : counts.distinct())
    logits[id] =
        penalised(logits[id], in.params.frequency_penalty,
                  static_cast<float>(counts[id]), in.params.presence_penalty);
  counts.clear();
}

bool is_before_min_tokens(const draw_input& in) {
  return in.output.size() < in.params.min_tokens;
}

void mask_ends(const draw_input& in, token_counts&, std::span<float> logits) {
  constexpr float never = -std::numeric_limits<float>::infinity();
  for (token_id id : in.eos_ids)
    logits[id] = never;
  for (token_id id : in.params.stop_token_ids)
    logits[id] = never;
}

constexpr std::array<logit_stage, 4> stages{{
    {has_bias, add_bias},
    {has_repetition_penalty, penalise_repetition},
    {has_output_penalty, penalise_output},
    {is_before_min_tokens, mask_ends},
}};

} // namespace

void token_counts::add(std::span<const token_id> tokens) {
  for (token_id id : tokens)
    if (counts_[id]++ == 0)
      distinct_.push_back(id);
}

void token_counts::clear() {
  for (token_id id : distinct_)
    counts_[id] = 0;
  distinct_.clear();
}

std::span<const logit_stage> logit_stages() {
  return stages;
}

} // namespace troupe::sampling
