#include "engine/model/architecture.hpp"

namespace troupe::model {

namespace {

const std::vector<architecture>& table() {
  static const std::vector<architecture> rows{
      {
          .name = "llama",
          .embedding = "token_embd.weight",
          .output_norm = "output_norm.weight",
          .output = "output.weight",
          .rope_factors = "rope_freqs.weight",
          .rope_interleaved = true,
          .block = {{block_op::rms_norm,
                     slot::residual,
                     slot::normed,
                     {{"attn_norm.weight", width::embedding}}},
                    {block_op::linear,
                     slot::normed,
                     slot::qkv,
                     {{"attn_q.weight", width::query},
                      {"attn_k.weight", width::key_value},
                      {"attn_v.weight", width::key_value}}},
                    {block_op::attention, slot::qkv, slot::attended, {}},
                    {block_op::add_linear,
                     slot::attended,
                     slot::residual,
                     {{"attn_output.weight", width::embedding}}},
                    {block_op::rms_norm,
                     slot::residual,
                     slot::normed,
                     {{"ffn_norm.weight", width::embedding}}},
                    {block_op::linear,
                     slot::normed,
                     slot::gate_up,
                     {{"ffn_gate.weight", width::feed_forward},
                      {"ffn_up.weight", width::feed_forward}}},
                    {block_op::silu_mul, slot::gate_up, slot::activated, {}},
                    {block_op::add_linear,
                     slot::activated,
                     slot::residual,
                     {{"ffn_down.weight", width::embedding}}}},
      },
  };
  return rows;
}

} // namespace

const std::vector<width>& widths_of(slot which) {
  static const std::vector<width> widths[slot_count] = {
      {width::embedding},
      {width::embedding},
      {width::query, width::key_value, width::key_value},
      {width::query},
      {width::feed_forward, width::feed_forward},
      {width::feed_forward}};
  return widths[static_cast<std::size_t>(which)];
}

const architecture* find_architecture(std::string_view name) {
  for (const auto& row : table())
    if (row.name == name)
      return &row;
  return nullptr;
}

} // namespace troupe::model
