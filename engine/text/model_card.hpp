#pragma once

#include "engine/codec/error.hpp"
#include "engine/codec/tagged.hpp"
#include "engine/text/tokenizer.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace troupe::text {

/// How a model's makers would have it sampled; unset = they do not say. For
/// requests that do not say it either; a value means what it means in
/// sampling_params.
struct sampling_defaults {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<std::int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  /// Where the row of seeds starts that requests without one get (router/
  /// generation); unset = they get random ones.
  std::optional<std::uint64_t> seed;

  bool operator==(const sampling_defaults&) const = default;
};

/// What a model gives for a prompt that draws no tokens.
struct pooled_output {
  enum class kind : std::uint8_t {
    embedding, ///< a vector that says what the text means
    score,     ///< one number: how well two texts fit each other
  };
  kind what = kind::embedding;
  std::uint32_t size = 1; ///< numbers
  /// The front of an embedding is one too (Matryoshka): of any length, or of
  /// those in `lengths` if there are any.
  bool may_be_cut = false;
  std::vector<std::uint32_t> lengths;

  bool operator==(const pooled_output&) const = default;
};

/// All that a router needs to know of a model: text in, text out, limits. A
/// replica publishes it once, by the hash of its encoding (blob listener).
struct model_card {
  std::string architecture; ///< "llama"
  tokenizer_data tokenizer;
  std::string chat_template;         ///< Jinja source; empty = none
  std::vector<token_id> eos_ids;     ///< tokens that end a choice
  std::uint32_t max_model_len = 0;   ///< prompt and output tokens of a choice
  std::uint32_t vocabulary_size = 0; ///< rows of the output layer
  sampling_defaults defaults;
  std::optional<pooled_output> pooled; ///< unset: it draws tokens

  /// A request may bring its own chat template.
  bool trust_request_template = false;
  /// Arguments of the template that requests do not give: a JSON object, or
  /// empty.
  std::string template_kwargs;

  bool operator==(const model_card&) const = default;
};

codec::bytes encode(const model_card&);
result<model_card> decode_model_card(codec::bytes_view);

} // namespace troupe::text
