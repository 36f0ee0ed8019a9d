#include "engine/model/hugging_face/family.hpp"

namespace troupe::model::hugging_face {

namespace {

const std::vector<family>& table() {
  static const std::vector<family> rows{
      {
          .model_type = "llama",
          .class_name = "LlamaForCausalLM",
          .architecture = "llama",
          .keys = {},
          .demands = {{"hidden_act", {"silu"}}},
          .modules = {{"model.layers.*.self_attn.rotary_emb", ""}},
      },
  };
  return rows;
}

} // namespace

const std::vector<key_row>& common_keys() {
  using enum value_kind;
  static const std::vector<key_row> rows{
      {"num_hidden_layers", "block_count", whole, true},
      {"hidden_size", "embedding_length", whole, true},
      {"intermediate_size", "feed_forward_length", whole, true},
      {"max_position_embeddings", "context_length", whole, true},
      {"vocab_size", "vocab_size", whole, true},
      {"num_attention_heads", "attention.head_count", whole, true},
      {"num_key_value_heads", "attention.head_count_kv"},
      {"head_dim", "attention.key_length"},
      {"head_dim", "attention.value_length"},
      {"rms_norm_eps", "attention.layer_norm_rms_epsilon", real, false, 1e-6},
  };
  return rows;
}

const std::vector<module_row>& common_modules() {
  static const std::vector<module_row> rows{
      {"model.embed_tokens", "token_embd"},
      {"model.norm", "output_norm"},
      {"lm_head", "output"},
      {"model.layers.*.input_layernorm", "blk.*.attn_norm"},
      {"model.layers.*.self_attn.q_proj", "blk.*.attn_q"},
      {"model.layers.*.self_attn.k_proj", "blk.*.attn_k"},
      {"model.layers.*.self_attn.v_proj", "blk.*.attn_v"},
      {"model.layers.*.self_attn.o_proj", "blk.*.attn_output"},
      {"model.layers.*.post_attention_layernorm", "blk.*.ffn_norm"},
      {"model.layers.*.mlp.gate_proj", "blk.*.ffn_gate"},
      {"model.layers.*.mlp.up_proj", "blk.*.ffn_up"},
      {"model.layers.*.mlp.down_proj", "blk.*.ffn_down"},
  };
  return rows;
}

const family* find_family(std::string_view model_type) {
  for (const auto& row : table())
    if (row.model_type == model_type)
      return &row;
  return nullptr;
}

} // namespace troupe::model::hugging_face
