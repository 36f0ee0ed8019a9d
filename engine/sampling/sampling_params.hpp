#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace troupe {

/// A token's place in the vocabulary.
using token_id = std::int32_t;

/// How the tokens of one choice are drawn. The defaults are OpenAI's.
/// The router checks every value before it gets here (DESIGN.md, "The way of a
/// request"); the engine checks ids and lengths again and refuses.
struct sampling_params {
  float temperature = 1.0f;        ///< 0 = greedy; ties go to the lowest id
  float top_p = 1.0f;              ///< (0, 1]
  std::int32_t top_k = 0;          ///< 0 = off
  float min_p = 0.0f;              ///< [0, 1]
  float frequency_penalty = 0.0f;  ///< over output tokens, [-2, 2]
  float presence_penalty = 0.0f;   ///< over output tokens, [-2, 2]
  float repetition_penalty = 1.0f; ///< over prompt and output tokens, > 0
  std::vector<std::pair<token_id, float>> logit_bias; ///< added to the logits
  std::uint64_t seed = 0;   ///< never "none": the edge draws a missing one
  std::uint32_t choice = 0; ///< prompt index x n + i; part of the random key
  std::uint32_t max_tokens = 16; ///< output tokens, counting resumed ones
  std::uint32_t min_tokens = 0;  ///< EOS and stop ids are masked until then
  std::vector<token_id> stop_token_ids; ///< end the choice, beside EOS
  bool ignore_eos = false;
  /// Log-probabilities of the raw logits (before temperature, bias and
  /// penalties): -1 none, 0 the chosen token's, k the k best besides.
  std::int32_t logprobs = -1;
  /// The same for every prompt position but the first (`echo`); such a prompt
  /// takes nothing from the prefix cache.
  std::int32_t prompt_logprobs = -1;

  bool operator==(const sampling_params&) const = default;
};

} // namespace troupe
