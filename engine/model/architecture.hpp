#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

/// Model families described as data. One interpreter (layers.hpp) reads every
/// row of the table, so a family that needs no new operation is a row and
/// nothing else (docs/adding-a-model.md).
namespace troupe::model {

/// The widths that occur in a model, as its configuration gives them.
enum class width : std::uint8_t {
  embedding, ///< the residual stream
  query,     ///< heads x head_dim
  key_value, ///< kv_heads x head_dim
  head,      ///< head_dim
  feed_forward,
  vocabulary,
  experts,             ///< their number
  expert_feed_forward, ///< of one expert
  qkv,                 ///< query, key_value and key_value in one tensor
  gate_up,             ///< feed_forward twice in one tensor
};

/// The activations of a step: a row of floats per token. Some hold several
/// widths beside each other because their weights are fused.
enum class slot : std::uint8_t {
  residual,
  normed,
  qkv,      ///< query | key_value | key_value
  attended, ///< query
  gate_up,  ///< feed_forward | feed_forward
  activated,
  branch, ///< what is to be added to the residual stream, if not at once
  routed, ///< the score of every expert
};

constexpr std::size_t slot_count = 8;

/// What a slot's row is made of, in order.
const std::vector<width>& widths_of(slot);

enum class block_op : std::uint8_t {
  rms_norm,   ///< to = norm(from) * weight
  layer_norm, ///< to = layer_norm(from) * weight + bias, if it has one
  norm_parts, ///< every part of `to` that has a weight, in place, in groups as
              ///< wide as the weight: whole parts or head by head
  linear,     ///< to = weights(from) + biases, stacked
  add_linear, ///< to += weights(from)
  add,        ///< to += from * the model's residual scale; no weights
  attention,  ///< turns q and k by rope, stores k and v, attends; no weights
  silu_mul,   ///< to = silu(gate) * up; no weights
  gelu_mul,   ///< to = gelu(gate) * up, in tanh form; no weights
  erf_gelu_mul, ///< to = gelu(gate) * up, as it is defined; no weights
  erf_gelu,     ///< to = gelu(to), as it is defined; no weights
  experts,      ///< to += the mixture of a row's experts of `from`, chosen by
                ///< `routed`; weights: gate, up, down of all, expert by expert
};

/// A tensor of one block, named without its "blk.N." prefix. `rows` is its
/// number of outputs; its inputs are as wide as the slot it reads. `bias` names
/// the vector that is added to a linear step's outputs, or to a norm's.
struct weight_part {
  std::string_view name;
  width rows;
  std::string_view bias = {};
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
  std::string_view embedding = "token_embd.weight"; ///< [vocabulary][embedding]
  std::string_view output_norm = "output_norm.weight"; ///< empty: none
  std::string_view output = "output.weight"; ///< absent: tied to the embedding
  /// Optional tensor of rope.dims / 2 floats.
  std::string_view rope_factors = "rope_freqs.weight";
  /// How q and k rows are ordered: true = rope's pairs are neighbours.
  bool rope_interleaved = false;
  /// Of every so many layers the last has no rope; 0: all have it.
  std::int32_t no_rope_every = 0;
  /// Which layers see a window of the last positions alone, where the file does
  /// not say: of every so many all but the last; 0: all. Unset: no windows.
  std::optional<std::int32_t> window_period = {};
  /// Where the file does not say which layers have a window, it is all but the
  /// first of every so many, not all but the last.
  bool window_after_first = false;
  /// Base of the rope of layers with a window, if they have one of their own.
  double window_rope_base = 0;
  /// Embeddings are multiplied by the root of their width.
  bool embedding_root = false;
  /// A model of so many layers scales its scores by the root of embedding /
  /// heads, not of head_dim: GGUF does not say it.
  std::int32_t wide_scale_layers = 0;
  /// Metadata that changes what is computed and that the family may have
  /// (others are refused by name), or must.
  std::vector<std::string_view> may_have = {};
  std::vector<std::string_view> must_have = {};
  /// An encoder: a row sees all of its sequence, and a window lies on both
  /// sides of it. It draws no tokens; its rows are pooled (encoder.hpp). The
  /// embeddings are normed ("token_embd_norm"), with biases as said.
  bool encoder = false;
  /// Tables of positions and types ("position_embd", "token_types") are added
  /// to the embeddings.
  bool learned_positions = false;
  bool biased_norms = false; ///< of norms that stand in no block
  /// An encoder's head of scores ("cls", "cls.output") has GELU and a norm
  /// ("cls.norm") where others have tanh.
  bool gelu_head = false;
  /// Of the first layer, if it differs.
  std::vector<block_step> first_block = {};
  std::vector<block_step> block; ///< repeated for every layer

  const std::vector<block_step>& block_of(std::int32_t layer) const {
    return layer == 0 && !first_block.empty() ? first_block : block;
  }
};

/// True of those whose weights are vectors that norm.
constexpr bool is_norm(block_op op) {
  return op == block_op::rms_norm || op == block_op::layer_norm ||
         op == block_op::norm_parts;
}

/// The slots that the family's block uses.
std::array<bool, slot_count> slots_of(const architecture&);

/// The row of that name; null if there is none.
const architecture* find_architecture(std::string_view name);

} // namespace troupe::model
