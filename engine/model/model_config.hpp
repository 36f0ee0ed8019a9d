#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/architecture.hpp"
#include "engine/ops/backend.hpp"
#include "engine/weights/checkpoint.hpp"

#include <cstdint>

namespace troupe::model {

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
  std::int32_t head_dim = 0;
  std::int32_t vocabulary = 0;
  std::int32_t context_length = 0; ///< positions the model was trained for
  float rms_epsilon = 0;
  ops::rope_params rope;
  bool tied_embeddings = false; ///< the output layer is the embedding table

  std::int64_t of(width) const;
  std::int64_t of(slot) const;
};

/// Fails by name on what is wrong (corrupt) and on what would have to be
/// computed otherwise than the decoder does (unsupported): unknown families,
/// tensors that the family does not have (biases, experts), rope scalings other
/// than linear and factors, sliding windows, soft caps.
result<model_config> read_model_config(const weights::checkpoint& file);

/// "blk.<layer>.<name>".
std::string block_tensor_name(std::int32_t layer, std::string_view name);

} // namespace troupe::model
