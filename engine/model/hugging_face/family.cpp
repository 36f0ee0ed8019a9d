#include "engine/model/hugging_face/family.hpp"

#include <initializer_list>

namespace troupe::model::hugging_face {

namespace {

using enum value_kind;

// What several families share.

const std::vector<key_row> own_head_dim{
    {"head_dim", "attention.key_length", whole, true},
    {"head_dim", "attention.value_length", whole, true}};

const std::vector<module_row> norms_of_q_k{
    {"model.layers.*.self_attn.q_norm", "blk.*.attn_q_norm"},
    {"model.layers.*.self_attn.k_norm", "blk.*.attn_k_norm"}};

constexpr module_row stored_frequencies{"model.layers.*.self_attn.rotary_emb",
                                        ""};

const demand_row silu{"hidden_act", {"silu"}};
const demand_row no_windows{"use_sliding_window", {"false"}};

template <class T>
std::vector<T> join(std::initializer_list<std::vector<T>> parts) {
  std::vector<T> out;
  for (const auto& part : parts)
    out.insert(out.end(), part.begin(), part.end());
  return out;
}

/// Gemma's norms hold w - 1.
std::vector<module_row> gemma_norms() {
  return {
      {"model.norm", "output_norm", change::plus_one},
      {"model.layers.*.input_layernorm", "blk.*.attn_norm", change::plus_one},
      {"model.layers.*.post_attention_layernorm", "blk.*.post_attention_norm",
       change::plus_one},
      {"model.layers.*.pre_feedforward_layernorm", "blk.*.ffn_norm",
       change::plus_one},
      {"model.layers.*.post_feedforward_layernorm", "blk.*.post_ffw_norm",
       change::plus_one}};
}

// The rows.

family llama() {
  return {.model_type = "llama",
          .class_name = "LlamaForCausalLM",
          .architecture = "llama",
          .keys = {},
          .demands = {silu},
          .modules = {stored_frequencies}};
}

family mistral() {
  return {.model_type = "mistral",
          .class_name = "MistralForCausalLM",
          .architecture = "llama",
          .keys = {{"sliding_window", "attention.sliding_window"}},
          .demands = {silu},
          .modules = {stored_frequencies}};
}

family qwen2() {
  return {.model_type = "qwen2",
          .class_name = "Qwen2ForCausalLM",
          .architecture = "qwen2",
          .keys = {},
          .demands = {silu, no_windows},
          .modules = {stored_frequencies}};
}

family qwen3() {
  return {.model_type = "qwen3",
          .class_name = "Qwen3ForCausalLM",
          .architecture = "qwen3",
          .keys = own_head_dim,
          .demands = {silu, no_windows},
          .modules = norms_of_q_k};
}

family gemma2() {
  return {
      .model_type = "gemma2",
      .class_name = "Gemma2ForCausalLM",
      .architecture = "gemma2",
      .keys = join<key_row>(
          {own_head_dim,
           {{"query_pre_attn_scalar", "attention.scale", inverse_root, true},
            {"sliding_window", "attention.sliding_window", whole, true},
            {"attn_logit_softcapping", "attn_logit_softcapping", real, true},
            {"final_logit_softcapping", "final_logit_softcapping", real,
             true}}}),
      .demands = {{"hidden_activation", {"gelu_pytorch_tanh"}},
                  {"use_bidirectional_attention", {"false"}}},
      .modules = gemma_norms(),
      .tied = true};
}

family gemma3() {
  return {
      .model_type = "gemma3_text",
      .class_name = "Gemma3ForCausalLM",
      .architecture = "gemma3",
      .keys = join<key_row>(
          {own_head_dim,
           {{"query_pre_attn_scalar", "attention.scale", inverse_root, true},
            {"sliding_window", "attention.sliding_window", whole, true},
            {"sliding_window_pattern", "attention.sliding_window_pattern"},
            {"final_logit_softcapping", "final_logit_softcapping", real}}}),
      .demands = {{"hidden_activation", {"gelu_pytorch_tanh"}},
                  {"attn_logit_softcapping", {"null"}},
                  {"use_bidirectional_attention", {"false"}}},
      .modules = join<module_row>({gemma_norms(),
                                   {{"model.layers.*.self_attn.q_norm",
                                     "blk.*.attn_q_norm", change::plus_one},
                                    {"model.layers.*.self_attn.k_norm",
                                     "blk.*.attn_k_norm", change::plus_one}}}),
      .tied = true,
      .rope_base = 1000000};
}

family phi3() {
  return {.model_type = "phi3",
          .class_name = "Phi3ForCausalLM",
          .architecture = "phi3",
          .keys = {{"sliding_window", "attention.sliding_window"},
                   {"rms_norm_eps", "attention.layer_norm_rms_epsilon", real,
                    false, 1e-5}},
          .demands = {silu},
          .modules = {{"model.layers.*.self_attn.qkv_proj", "blk.*.attn_qkv"},
                      {"model.layers.*.mlp.gate_up_proj", "blk.*.ffn_up"}},
          .published_with_code = true};
}

family smollm3() {
  return {.model_type = "smollm3",
          .class_name = "SmolLM3ForCausalLM",
          .architecture = "smollm3",
          .keys = {},
          .demands = {silu, no_windows, {"no_rope_layer_interval", {"4"}}},
          .modules = {},
          .tied = true,
          .rope_base = 2000000};
}

family granite() {
  return {.model_type = "granite",
          .class_name = "GraniteForCausalLM",
          .architecture = "granite",
          .keys = {{"attention_multiplier", "attention.scale", real, false, 1},
                   {"embedding_multiplier", "embedding_scale", real},
                   {"residual_multiplier", "residual_scale", real},
                   {"logits_scaling", "logit_scale", real}},
          .demands = {silu},
          .modules = {}};
}

family qwen3_moe() {
  return {
      .model_type = "qwen3_moe",
      .class_name = "Qwen3MoeForCausalLM",
      .architecture = "qwen3moe",
      .keys = join<key_row>(
          {own_head_dim,
           {{"num_experts", "expert_count"},
            {"num_local_experts", "expert_count"}, // since transformers 5
            {"num_experts_per_tok", "expert_used_count", whole, true},
            {"moe_intermediate_size", "expert_feed_forward_length", whole,
             true},
            {"norm_topk_prob", "expert_weights_norm", flag, false, 0}}}),
      .demands = {silu,
                  no_windows,
                  {"decoder_sparse_step", {"1"}},
                  {"mlp_only_layers", {"[]"}}},
      .modules = join<module_row>(
          {norms_of_q_k,
           {{"model.layers.*.mlp.gate", "blk.*.ffn_gate_inp"},
            {"model.layers.*.mlp.experts.*.gate_proj", "blk.*.ffn_gate_exps"},
            {"model.layers.*.mlp.experts.*.up_proj", "blk.*.ffn_up_exps"},
            {"model.layers.*.mlp.experts.*.down_proj",
             "blk.*.ffn_down_exps"}}})};
}

family olmo2() {
  return {.model_type = "olmo2",
          .class_name = "Olmo2ForCausalLM",
          .architecture = "olmo2",
          .keys = {{"rms_norm_eps", "attention.layer_norm_rms_epsilon", real,
                    false, 1e-5}},
          .demands = {silu},
          .modules =
              join<module_row>({norms_of_q_k,
                                {{"model.layers.*.post_attention_layernorm",
                                  "blk.*.post_attention_norm"},
                                 {"model.layers.*.post_feedforward_layernorm",
                                  "blk.*.post_ffw_norm"}}})};
}

const std::vector<family>& table() {
  static const std::vector<family> rows{
      llama(), mistral(), qwen2(),   qwen3(),     gemma2(), gemma3(),
      phi3(),  smollm3(), granite(), qwen3_moe(), olmo2()};
  return rows;
}

} // namespace

const std::vector<key_row>& common_keys() {
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
