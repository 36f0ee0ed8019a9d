#pragma once

#include "engine/sampling/sampling_params.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace troupe::sampling {

/// A choice at the moment when its next token is drawn.
struct draw_input {
  std::span<const float> logits; ///< raw, one per vocabulary entry
  std::span<const token_id> prompt;
  std::span<const token_id> output;
  std::span<const token_id> eos_ids;
  const sampling_params& params;
};

/// How often ids occur in a choice; reused from draw to draw.
class token_counts {
public:
  explicit token_counts(std::size_t vocabulary) : counts_(vocabulary) {
  }

  void add(std::span<const token_id> tokens);

  /// Each id that occurs, once.
  std::span<const token_id> distinct() const {
    return distinct_;
  }

  std::uint32_t operator[](token_id id) const {
    return counts_[id];
  }

  void clear();

private:
  std::vector<std::uint32_t> counts_;
  std::vector<token_id> distinct_;
};

/// One change of the logits before temperature. Ids in `params` are inside the
/// vocabulary.
struct logit_stage {
  bool (*applies)(const draw_input&);
  void (*apply)(const draw_input&, token_counts& empty,
                std::span<float> logits);
};

/// In order: logit_bias, repetition penalty, frequency and presence penalty,
/// mask of EOS and stop ids before min_tokens.
std::span<const logit_stage> logit_stages();

} // namespace troupe::sampling
