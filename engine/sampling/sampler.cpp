#include "engine/sampling/sampler.hpp"

#include "engine/sampling/draw_math.hpp"
#include "engine/sampling/philox.hpp"

#include <algorithm>

namespace troupe::sampling {

error unusable_logits() {
  return {errc::internal, "the model's output for this position holds values "
                          "that are not finite numbers"};
}

namespace {

token_id first_of(std::span<const float> logits, float value) {
  return static_cast<token_id>(std::find(logits.begin(), logits.end(), value) -
                               logits.begin());
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
  if (params.top_k > 0)
    weights_.drop_worse(logits, last_of_best(logits, params.top_k, best_));
  if (params.min_p > 0)
    weights_.drop_below(params.min_p);
  if (params.top_p < 1)
    weights_.drop_worse(logits, nucleus_.find(logits, weights_, params.top_p));
  return static_cast<token_id>(weights_.pick(fraction));
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
    return candidate{id, logprob_of(logits[id], *max, log_sum)};
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
