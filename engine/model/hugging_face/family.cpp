#include "engine/model/hugging_face/family.hpp"

#include <initializer_list>
#include <utility>

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

/// BERT and RoBERTa; what differs is left to the rows.
family bert_like(std::string_view model_type, std::string_view class_name,
                 std::string_view prefix) {
  return {.model_type = model_type,
          .class_name = class_name,
          .architecture = "bert",
          .keys = {{"layer_norm_eps", "attention.layer_norm_epsilon", real,
                    false, 1e-12}},
          .demands = {{"hidden_act", {"gelu"}},
                      {"position_embedding_type", {"absolute"}},
                      {"is_decoder", {"false"}},
                      {"add_cross_attention", {"false"}}},
          .modules = {{"embeddings", ""}, // the ids of the positions
                      {"embeddings.word_embeddings", "token_embd"},
                      {"embeddings.position_embeddings", "position_embd"},
                      {"embeddings.token_type_embeddings", "token_types"},
                      {"embeddings.LayerNorm", "token_embd_norm"},
                      {"encoder.layer.*.attention.self.query", "blk.*.attn_q"},
                      {"encoder.layer.*.attention.self.key", "blk.*.attn_k"},
                      {"encoder.layer.*.attention.self.value", "blk.*.attn_v"},
                      {"encoder.layer.*.attention.output.dense",
                       "blk.*.attn_output"},
                      {"encoder.layer.*.attention.output.LayerNorm",
                       "blk.*.attn_output_norm"},
                      {"encoder.layer.*.intermediate.dense", "blk.*.ffn_up"},
                      {"encoder.layer.*.output.dense", "blk.*.ffn_down"},
                      {"encoder.layer.*.output.LayerNorm",
                       "blk.*.layer_output_norm"}},
          .prefix = prefix};
}

/// Modules that a class has beside the others of its family.
family with_modules(family of, const std::vector<module_row>& more) {
  of.modules = join<module_row>({more, of.modules});
  return of;
}

family scoring(family of, const std::vector<module_row>& head) {
  of.scores = true;
  return with_modules(std::move(of), head);
}

/// The pooler of a model that gives embeddings is not theirs.
const std::vector<module_row> unused_pooler{{"pooler.dense", ""}};

family bert() {
  return with_modules(bert_like("bert", "BertModel", "bert."), unused_pooler);
}

family scoring_bert() {
  return scoring(bert_like("bert", "BertForSequenceClassification", "bert."),
                 {{"pooler.dense", "cls"}, {"classifier", "cls.output"}});
}

family roberta_like(std::string_view model_type, std::string_view class_name) {
  auto out = with_modules(bert_like(model_type, class_name, "roberta."),
                          unused_pooler);
  for (auto& row : out.modules)
    if (row.to == "position_embd")
      row.how = change::cut;
  out.cut_positions = true;
  return out;
}

family scoring_roberta(std::string_view model_type,
                       std::string_view class_name) {
  return scoring(
      roberta_like(model_type, class_name),
      {{"classifier.dense", "cls"}, {"classifier.out_proj", "cls.output"}});
}

family modern_bert(std::string_view class_name) {
  return {
      .model_type = "modernbert",
      .class_name = class_name,
      .architecture = "modern-bert",
      .keys = {{"norm_eps", "attention.layer_norm_epsilon", real, false, 1e-5},
               {"local_attention", "attention.sliding_window", whole, true},
               {"global_attn_every_n_layers",
                "attention.sliding_window_pattern"},
               {"global_rope_theta", "rope.freq_base", real, false, 160000},
               {"local_rope_theta", "rope.freq_base_swa", real, false, 10000}},
      .demands = {{"hidden_activation", {"gelu"}},
                  {"norm_bias", {"false"}},
                  {"attention_bias", {"false"}},
                  {"mlp_bias", {"false"}},
                  {"classifier_activation", {"gelu"}},
                  {"classifier_pooling", {"cls", "mean"}}},
      .modules = {{"embeddings.tok_embeddings", "token_embd"},
                  {"embeddings.norm", "token_embd_norm"},
                  {"layers.*.attn_norm", "blk.*.attn_norm"},
                  {"layers.*.attn.Wqkv", "blk.*.attn_qkv"},
                  {"layers.*.attn.Wo", "blk.*.attn_output"},
                  {"layers.*.mlp_norm", "blk.*.ffn_norm"},
                  {"layers.*.mlp.Wi", "blk.*.ffn_up"},
                  {"layers.*.mlp.Wo", "blk.*.ffn_down"},
                  {"final_norm", "output_norm"}},
      .prefix = "model."};
}

family scoring_modern_bert() {
  return scoring(modern_bert("ModernBertForSequenceClassification"),
                 {{"head.dense", "cls"},
                  {"head.norm", "cls.norm"},
                  {"classifier", "cls.output"}});
}

const std::vector<family>& table() {
  static const std::vector<family> rows{
      llama(),
      mistral(),
      qwen2(),
      qwen3(),
      gemma2(),
      gemma3(),
      phi3(),
      smollm3(),
      granite(),
      qwen3_moe(),
      olmo2(),
      bert(),
      scoring_bert(),
      roberta_like("xlm-roberta", "XLMRobertaModel"),
      scoring_roberta("xlm-roberta", "XLMRobertaForSequenceClassification"),
      roberta_like("roberta", "RobertaModel"),
      scoring_roberta("roberta", "RobertaForSequenceClassification"),
      modern_bert("ModernBertModel"),
      scoring_modern_bert()};
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

std::vector<const family*> find_families(std::string_view model_type) {
  std::vector<const family*> out;
  for (const auto& row : table())
    if (row.model_type == model_type)
      out.push_back(&row);
  return out;
}

} // namespace troupe::model::hugging_face
