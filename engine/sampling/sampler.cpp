#include "engine/sampling/sampler.hpp"

#include "engine/sampling/fixed_math.hpp"
#include "engine/sampling/philox.hpp"

#include <algorithm>

namespace troupe::sampling {

namespace {

error unusable_logits() {
  return {errc::internal, "the model's output for this position holds values "
                          "that are not finite numbers"};
}

token_id first_of(std::span<const float> logits, float value) {
  return static_cast<token_id>(std::find(logits.begin(), logits.end(), value) -
                               logits.begin());
}

/// A prefix of the candidates and the sum of its weights.
struct nucleus {
  std::size_t size = 0;
  double sum = 0;
  bool complete = false; ///< the sum reaches what was asked
};

nucleus find_nucleus(std::span<const ranked_logit> candidates,
                     const softmax_weights& weights, double wanted) {
  nucleus result;
  while (!result.complete && result.size < candidates.size()) {
    result.sum += weights[candidates[result.size++].id];
    result.complete = result.sum >= wanted;
  }
  return result;
}

double sum_of(std::span<const ranked_logit> candidates,
              const softmax_weights& weights) {
  double sum = 0;
  for (const ranked_logit& candidate : candidates)
    sum += weights[candidate.id];
  return sum;
}

token_id pick(std::span<const ranked_logit> candidates,
              const softmax_weights& weights, double target) {
  token_id chosen = candidates.front().id;
  double sum = 0;
  for (const ranked_logit& candidate : candidates) {
    if (weights[candidate.id] == 0)
      continue;
    chosen = candidate.id;
    sum += weights[chosen];
    if (sum > target)
      break;
  }
  return chosen;
}

} // namespace

sampler::sampler(std::int32_t vocabulary) : counts_(vocabulary) {
}

std::span<const float> sampler::apply_stages(const draw_input& in) {
  bool copied = false;
  for (const logit_stage& stage : logit_stages()) {
    if (!stage.applies(in))
      continue;
    if (!copied)
      changed_logits_.assign(in.logits.begin(), in.logits.end());
    copied = true;
    stage.apply(in, counts_, changed_logits_);
  }
  return copied ? std::span<const float>{changed_logits_} : in.logits;
}

result<token_id> sampler::draw(const draw_input& in) {
  const std::span<const float> logits = apply_stages(in);
  const std::optional<float> max = largest(logits);
  if (!max)
    return unusable_logits();
  const sampling_params& params = in.params;
  if (params.temperature == 0)
    return first_of(logits, *max);
  const double fraction =
      uniform(params.seed, params.choice,
              static_cast<std::uint32_t>(in.prompt.size() + in.output.size()));
  weights_.compute(logits, *max, params.temperature);
  // Taking min_p before top_k keeps the same ids: both cut from the low end.
  if (params.min_p > 0)
    weights_.drop_below(params.min_p);
  if (params.top_k > 0 || params.top_p < 1)
    return draw_from_best(logits, params, fraction);
  return static_cast<token_id>(weights_.pick(fraction));
}

token_id sampler::draw_from_best(std::span<const float> logits,
                                 const sampling_params& params,
                                 double fraction) {
  const std::size_t all = logits.size();
  const bool has_top_k = params.top_k > 0;
  std::size_t window = has_top_k ? static_cast<std::size_t>(params.top_k) : 256;
  for (;; window *= 8) {
    window = std::min(window, all);
    find_best(logits, window, best_);
    const double sum = has_top_k ? sum_of(best_, weights_) : weights_.sum();
    const nucleus kept = find_nucleus(best_, weights_, params.top_p * sum);
    if (kept.complete || has_top_k || window == all)
      return pick(std::span{best_}.first(kept.size), weights_,
                  fraction * kept.sum);
  }
}

result<std::vector<candidate>>
sampler::log_probabilities(std::span<const float> logits, token_id chosen,
                           std::int32_t best) {
  const std::optional<float> max = largest(logits);
  if (!max)
    return unusable_logits();
  weights_.compute(logits, *max, 1.0);
  const double log_sum = fixed_log(weights_.sum());
  auto logprob = [&](token_id id) {
    return candidate{id,
                     static_cast<float>((double{logits[id]} - *max) - log_sum)};
  };
  find_best(logits, static_cast<std::size_t>(best), best_);
  std::vector<candidate> result;
  result.reserve(best_.size() + 1);
  result.push_back(logprob(chosen));
  for (const ranked_logit& entry : best_)
    result.push_back(logprob(entry.id));
  return result;
}

} // namespace troupe::sampling
