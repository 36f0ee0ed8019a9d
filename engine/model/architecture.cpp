#include "engine/model/architecture.hpp"

#include <initializer_list>

namespace troupe::model {

namespace {

using steps = std::vector<block_step>;

// Steps that families share.

block_step norm(std::string_view weight) {
  return {block_op::rms_norm,
          slot::residual,
          slot::normed,
          {{weight, width::embedding}}};
}

block_step qkv(slot from) {
  return {block_op::linear,
          from,
          slot::qkv,
          {{"attn_q.weight", width::query},
           {"attn_k.weight", width::key_value},
           {"attn_v.weight", width::key_value}}};
}

block_step biased_qkv(slot from) {
  return {block_op::linear,
          from,
          slot::qkv,
          {{"attn_q.weight", width::query, "attn_q.bias"},
           {"attn_k.weight", width::key_value, "attn_k.bias"},
           {"attn_v.weight", width::key_value, "attn_v.bias"}}};
}

/// Norms of q and k, each as wide as said.
block_step norm_q_k(width q, width k) {
  return {block_op::norm_parts,
          slot::qkv,
          slot::qkv,
          {{"attn_q_norm.weight", q}, {"attn_k_norm.weight", k}}};
}

block_step attend() {
  return {block_op::attention, slot::qkv, slot::attended, {}};
}

block_step attention_output(block_op op, slot to) {
  return {op, slot::attended, to, {{"attn_output.weight", width::embedding}}};
}

block_step gate_up(slot from) {
  return {block_op::linear,
          from,
          slot::gate_up,
          {{"ffn_gate.weight", width::feed_forward},
           {"ffn_up.weight", width::feed_forward}}};
}

block_step activate(block_op op) {
  return {op, slot::gate_up, slot::activated, {}};
}

block_step down(block_op op, slot to) {
  return {op, slot::activated, to, {{"ffn_down.weight", width::embedding}}};
}

block_step add_branch() {
  return {block_op::add, slot::branch, slot::residual, {}};
}

/// A norm of the branch, then the branch into the residual stream.
steps add_normed(std::string_view weight) {
  return {{block_op::rms_norm,
           slot::branch,
           slot::branch,
           {{weight, width::embedding}}},
          add_branch()};
}

steps join(std::initializer_list<steps> parts) {
  steps out;
  for (const auto& part : parts)
    out.insert(out.end(), part.begin(), part.end());
  return out;
}

/// Llama's block from attention on.
steps attend_and_add() {
  return {attend(), attention_output(block_op::add_linear, slot::residual)};
}

steps silu_feed_forward() {
  return {norm("ffn_norm.weight"), gate_up(slot::normed),
          activate(block_op::silu_mul),
          down(block_op::add_linear, slot::residual)};
}

steps llama_block() {
  return join({{norm("attn_norm.weight"), qkv(slot::normed)},
               attend_and_add(),
               silu_feed_forward()});
}

/// Norms before and after both halves, GELU; `norms` of q and k or nothing.
steps gemma_block(const steps& norms) {
  return join(
      {{norm("attn_norm.weight"), qkv(slot::normed)},
       norms,
       {attend(), attention_output(block_op::linear, slot::branch)},
       add_normed("post_attention_norm.weight"),
       {norm("ffn_norm.weight"), gate_up(slot::normed),
        activate(block_op::gelu_mul), down(block_op::linear, slot::branch)},
       add_normed("post_ffw_norm.weight")});
}

// The rows.

/// Llama and Mistral, which has a window in all layers.
architecture llama() {
  return {.name = "llama",
          .rope_interleaved = true,
          .window_period = 0,
          .may_have = {"attention.sliding_window",
                       "attention.sliding_window_pattern"},
          .block = llama_block()};
}

architecture qwen2() {
  return {.name = "qwen2",
          .block = join({{norm("attn_norm.weight"), biased_qkv(slot::normed)},
                         attend_and_add(),
                         silu_feed_forward()})};
}

architecture qwen3() {
  return {.name = "qwen3",
          .block = join({{norm("attn_norm.weight"), qkv(slot::normed),
                          norm_q_k(width::head, width::head)},
                         attend_and_add(),
                         silu_feed_forward()})};
}

architecture gemma2() {
  return {.name = "gemma2",
          .window_period = 2,
          .embedding_root = true,
          .wide_scale_layers = 46, // 27B
          .may_have = {"attention.scale", "attention.sliding_window_pattern"},
          .must_have = {"attention.sliding_window", "attn_logit_softcapping",
                        "final_logit_softcapping"},
          .block = gemma_block({})};
}

architecture gemma3() {
  return {.name = "gemma3",
          .window_period = 6,
          .window_rope_base = 10000,
          .embedding_root = true,
          .wide_scale_layers = 62, // 27B
          .may_have = {"attention.scale", "attention.sliding_window",
                       "attention.sliding_window_pattern", "rope.freq_base_swa",
                       "final_logit_softcapping"},
          .block = gemma_block({norm_q_k(width::head, width::head)})};
}

architecture phi3() {
  return {.name = "phi3",
          .window_period = 0,
          .may_have = {"attention.sliding_window",
                       "attention.sliding_window_pattern"},
          .block = join({{norm("attn_norm.weight"),
                          {block_op::linear,
                           slot::normed,
                           slot::qkv,
                           {{"attn_qkv.weight", width::qkv}}}},
                         attend_and_add(),
                         {norm("ffn_norm.weight"),
                          {block_op::linear,
                           slot::normed,
                           slot::gate_up,
                           {{"ffn_up.weight", width::gate_up}}},
                          activate(block_op::silu_mul),
                          down(block_op::add_linear, slot::residual)}})};
}

architecture smollm3() {
  return {.name = "smollm3",
          .rope_interleaved = true,
          .no_rope_every = 4,
          .block = llama_block()};
}

architecture granite() {
  return {.name = "granite",
          .rope_interleaved = true,
          .may_have = {"attention.scale", "embedding_scale", "residual_scale",
                       "logit_scale"},
          .block = {norm("attn_norm.weight"), qkv(slot::normed), attend(),
                    attention_output(block_op::linear, slot::branch),
                    add_branch(), norm("ffn_norm.weight"),
                    gate_up(slot::normed), activate(block_op::silu_mul),
                    down(block_op::linear, slot::branch), add_branch()}};
}

architecture qwen3moe() {
  return {.name = "qwen3moe",
          .may_have = {"expert_weights_norm"},
          .must_have = {"expert_count"},
          .block =
              join({{norm("attn_norm.weight"), qkv(slot::normed),
                     norm_q_k(width::head, width::head)},
                    attend_and_add(),
                    {norm("ffn_norm.weight"),
                     {block_op::linear,
                      slot::normed,
                      slot::routed,
                      {{"ffn_gate_inp.weight", width::experts}}},
                     {block_op::experts,
                      slot::normed,
                      slot::residual,
                      {{"ffn_gate_exps.weight", width::expert_feed_forward},
                       {"ffn_up_exps.weight", width::expert_feed_forward},
                       {"ffn_down_exps.weight", width::embedding}}}}})};
}

architecture olmo2() {
  return {.name = "olmo2",
          .block = join(
              {{qkv(slot::residual), norm_q_k(width::query, width::key_value),
                attend(), attention_output(block_op::linear, slot::branch)},
               add_normed("post_attention_norm.weight"),
               {gate_up(slot::residual), activate(block_op::silu_mul),
                down(block_op::linear, slot::branch)},
               add_normed("post_ffw_norm.weight")})};
}

/// BERT's norms stand after the sums. RoBERTa's files have another table of
/// positions, which their reader cuts, and are the same otherwise.
architecture bert() {
  const auto normed = [](std::string_view weight, std::string_view bias) {
    return block_step{block_op::layer_norm,
                      slot::residual,
                      slot::residual,
                      {{weight, width::embedding, bias}}};
  };
  const auto linear = [](slot from, slot to, weight_part part) {
    return block_step{block_op::linear, from, to, {part}};
  };
  return {
      .name = "bert",
      .output_norm = "",
      .output = "",
      .no_rope_every = 1,
      .encoder = true,
      .learned_positions = true,
      .biased_norms = true,
      .block = {
          biased_qkv(slot::residual),
          attend(),
          linear(slot::attended, slot::branch,
                 {"attn_output.weight", width::embedding, "attn_output.bias"}),
          add_branch(),
          normed("attn_output_norm.weight", "attn_output_norm.bias"),
          linear(slot::residual, slot::activated,
                 {"ffn_up.weight", width::feed_forward, "ffn_up.bias"}),
          {block_op::erf_gelu, slot::activated, slot::activated, {}},
          linear(slot::activated, slot::branch,
                 {"ffn_down.weight", width::embedding, "ffn_down.bias"}),
          add_branch(),
          normed("layer_output_norm.weight", "layer_output_norm.bias")}};
}

/// ModernBERT's block from the projections on.
steps modern_bert_block(slot from) {
  return join(
      {{{block_op::linear, from, slot::qkv, {{"attn_qkv.weight", width::qkv}}}},
       attend_and_add(),
       {{block_op::layer_norm,
         slot::residual,
         slot::normed,
         {{"ffn_norm.weight", width::embedding}}},
        {block_op::linear,
         slot::normed,
         slot::gate_up,
         {{"ffn_up.weight", width::gate_up}}},
        activate(block_op::erf_gelu_mul),
        down(block_op::add_linear, slot::residual)}});
}

/// The embeddings are normed, so the first layer begins without a norm.
architecture modern_bert() {
  return {.name = "modern-bert",
          .output = "",
          .window_period = 3,
          .window_after_first = true,
          .window_rope_base = 10000,
          .may_have = {"attention.sliding_window",
                       "attention.sliding_window_pattern",
                       "rope.freq_base_swa"},
          .encoder = true,
          .gelu_head = true,
          .first_block = modern_bert_block(slot::residual),
          .block = join({{{block_op::layer_norm,
                           slot::residual,
                           slot::normed,
                           {{"attn_norm.weight", width::embedding}}}},
                         modern_bert_block(slot::normed)})};
}

const std::vector<architecture>& table() {
  static const std::vector<architecture> rows{
      llama(),   qwen2(),   qwen3(),    gemma2(), gemma3(), phi3(),
      smollm3(), granite(), qwen3moe(), olmo2(),  bert(),   modern_bert()};
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
      {width::feed_forward},
      {width::embedding},
      {width::experts}};
  return widths[static_cast<std::size_t>(which)];
}

std::array<bool, slot_count> slots_of(const architecture& family) {
  std::array<bool, slot_count> out{};
  auto use = [&](slot which) { out[static_cast<std::size_t>(which)] = true; };
  use(slot::residual);
  if (family.learned_positions)
    use(slot::branch);
  for (const auto& step : family.block) {
    use(step.from);
    use(step.to);
  }
  return out;
}

const architecture* find_architecture(std::string_view name) {
  for (const auto& row : table())
    if (row.name == name)
      return &row;
  return nullptr;
}

} // namespace troupe::model
