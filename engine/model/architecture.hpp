#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

/// Model families described as data. One decoder interprets every row of the
/// table, so a family that needs no new operation is a row and nothing else.
namespace troupe::model {

/// The widths that occur in a model, as its configuration gives them.
enum class width : std::uint8_t {
  embedding, ///< the residual stream
  query,     ///< heads x head_dim
  key_value, ///< kv_heads x head_dim
  feed_forward,
  vocabulary,
};

/// The activations of a step: a row of floats per token. Some hold several
/// widths beside each other because their weights are fused.
enum class slot : std::uint8_t {
  residual,
  normed,
  qkv,       ///< query | key_value | key_value
  attended,  ///< query
  gate_up,   ///< feed_forward | feed_forward
  activated, ///< feed_forward
};

constexpr std::size_t slot_count = 6;

/// What a slot's row is made of, in order.
const std::vector<width>& widths_of(slot);

enum class block_op : std::uint8_t {
  rms_norm,   ///< to = norm(from) * weight
  linear,     ///< to = weights(from), stacked
  add_linear, ///< to += weights(from)
  attention,  ///< turns q and k by rope, stores k and v, attends; no weights
  silu_mul,   ///< to = silu(gate) * up; no weights
};

/// A tensor of one block, named without its "blk.N." prefix. `rows` is its
/// number of outputs; its inputs are as wide as the slot it reads.
struct weight_part {
  std::string_view name;
  width rows;
};

/// One operation of a block. Several parts are fused into one weight.
struct block_step {
  block_op op;
  slot from;
  slot to;
  std::vector<weight_part> weights;
};

/// A family: GGUF's "general.architecture" and what its tensors mean.
struct architecture {
  std::string_view name;
  std::string_view embedding; ///< tensor [vocabulary][embedding]
  std::string_view output_norm;
  std::string_view output;       ///< absent in a file: tied to the embedding
  std::string_view rope_factors; ///< optional tensor of head_dim / 2 floats
  /// How q and k rows are ordered: true = rope's pairs are neighbours.
  bool rope_interleaved;
  std::vector<block_step> block; ///< repeated for every layer
};

/// The row of that name; null if there is none.
const architecture* find_architecture(std::string_view name);

} // namespace troupe::model
