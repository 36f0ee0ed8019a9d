#pragma once

#include "engine/codec/error.hpp"
#include "engine/sampling/best_logits.hpp"
#include "engine/sampling/candidate.hpp"
#include "engine/sampling/logit_stages.hpp"
#include "engine/sampling/nucleus.hpp"
#include "engine/sampling/softmax.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace troupe::sampling {

/// The error of a row that holds NaN or infinity, or of which nothing may be
/// drawn.
error unusable_logits();

/// Logits to token. The logit stages come first, then temperature, top_k,
/// min_p, top_p and the draw:
/// - temperature 0 takes the best logit, ties the lowest id;
/// - top_k keeps the k best; min_p keeps what has at least min_p times the best
///   probability; top_p keeps the fewest of what is left that together reach
///   top_p of it. At every border ties go to the lowest id.
///
/// A draw is a function of its input alone; the members are scratch space. Same
/// bits in, same token out, on every machine. Not thread-safe.
class sampler {
public:
  explicit sampler(std::int32_t vocabulary);

  /// Draws the next token. errc::internal if the row holds NaN or infinity, or
  /// if nothing may be drawn.
  result<token_id> draw(const draw_input& in);

  /// Log-probabilities of raw logits: first `chosen`, then the `best` best in
  /// order. Fails like `draw`.
  result<std::vector<candidate>>
  log_probabilities(std::span<const float> logits, token_id chosen,
                    std::int32_t best);

private:
  std::span<const float> apply_stages(const draw_input& in);

  std::vector<float> changed_logits_;
  token_counts counts_;
  softmax_weights weights_;
  nucleus_finder nucleus_;
  std::vector<ranked_logit> best_;
};

} // namespace troupe::sampling
