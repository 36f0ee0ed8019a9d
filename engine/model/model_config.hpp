#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/architecture.hpp"
#include "engine/ops/backend.hpp"
#include "engine/text/model_card.hpp"
#include "engine/weights/checkpoint.hpp"

#include <cstdint>
#include <vector>

namespace troupe::model {

/// How the rows of a sequence become what a model gives that draws no tokens:
/// one of them, or their mean; then a head makes a score of it, or it is the
/// embedding.
struct pooling {
  enum class rows : std::uint8_t { mean, first, last };
  rows of = rows::mean;
  bool normalised = false;  ///< an embedding has the length 1
  bool has_head = false;    ///< it is a score
  bool biased_head = false; ///< the head's first layer has a bias
  bool sigmoid = false;     ///< a score is between 0 and 1
  text::pooled_output output;
};

/// The numbers of a model, read from its file and checked: they are positive,
/// divide each other as they must, and every tensor of the family is there with
/// exactly the shape that they say. So sizes computed from them are bounded by
/// the size of the file.
struct model_config {
  const architecture* family = nullptr;
  std::int32_t layers = 0;
  std::int32_t embedding = 0;
  std::int32_t feed_forward = 0;
  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;
  /// Of one of several ranks: into how many shares the KV heads are divided.
  std::int32_t kv_shares = 1;
  std::int32_t head_dim = 0;
  std::int32_t vocabulary = 0;
  std::int32_t context_length = 0; ///< positions the model was trained for
  float norm_epsilon = 0;
  bool tied_embeddings = false; ///< the output layer is the embedding table

  ops::rope_params rope;
  ops::rope_params window_rope; ///< of layers with a window
  /// The rope is the one for short contexts of a model that has another for
  /// long ones: part of the arithmetic class.
  bool short_rope = false;
  ops::attention_params attention; ///< of layers without a window
  /// What makes queries, keys and values is in bf16 (ops::kv_shape).
  bool bf16_attention = false;
  std::int32_t window = 0;    ///< positions; 0: no layer has a window
  std::vector<bool> windowed; ///< per layer, if there are windows

  std::int32_t experts = 0;
  std::int32_t experts_used = 0; ///< per row
  std::int32_t expert_feed_forward = 0;
  bool normalise_experts = false; ///< shares of the chosen ones add up to 1

  std::int32_t types = 0; ///< of an encoder's tokens, 0: it has no table
  /// It draws no tokens: an encoder, or a decoder whose file says so.
  bool pooled = false;
  model::pooling pooling; ///< if it is pooled

  float embedding_scale = 1; ///< of embeddings
  float residual_scale = 1;  ///< of what is added to the residual stream
  float logit_scale = 1;     ///< of logits
  float final_soft_cap = 0;  ///< of logits, after it; 0: none

  std::int64_t of(width) const;
  std::int64_t of(slot) const;
  const ops::rope_params& rope_of(std::int32_t layer) const;
  /// Those of all layers, each once.
  std::vector<ops::rope_params> ropes() const;
  ops::attention_params attention_of(std::int32_t layer) const;
  ops::mixture_params mixture() const;
  bool has_window(std::int32_t layer) const;
};

/// Fails by name on what is wrong (corrupt) and on what would have to be
/// computed otherwise than the decoder does (unsupported): unknown families,
/// tensors and metadata that the family's row does not have, kinds of rope
/// scaling that rope_config.hpp does not know. `longest`: positions that a
/// sequence will have at most, 0 if it may have all; only LongRoPE asks for it.
result<model_config> read_model_config(const weights::checkpoint& file,
                                       std::int32_t longest = 0);

/// "blk.<layer>.<name>".
std::string block_tensor_name(std::int32_t layer, std::string_view name);

} // namespace troupe::model
