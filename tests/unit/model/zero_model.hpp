#pragma once

#include "engine/model/model_config.hpp"

#include "tests/unit/weights/gguf_builder.hpp"

namespace troupe::test {

/// A complete file of zeros of any family, made from its row: embedding 16, 4
/// heads and 2 kv heads, vocabulary of 6, 3 experts.
inline gguf_builder zero_model(const std::string& name, std::int32_t layers = 7,
                               std::int32_t head_dim = 4) {
  model::model_config sizes;
  sizes.family = model::find_architecture(name);
  sizes.embedding = 16;
  sizes.feed_forward = 24;
  sizes.heads = 4;
  sizes.kv_heads = 2;
  sizes.head_dim = head_dim;
  sizes.vocabulary = 6;
  sizes.experts = 3;
  sizes.expert_feed_forward = 8;
  gguf_builder out;
  out.string("general.architecture", name);
  for (auto [key, value] : {std::pair{"block_count", layers},
                            {"attention.key_length", head_dim},
                            {"attention.value_length", head_dim},
                            {"embedding_length", 16},
                            {"feed_forward_length", 24},
                            {"context_length", 64},
                            {"attention.head_count", 4},
                            {"attention.head_count_kv", 2}})
    out.u32(name + "." + key, static_cast<std::uint32_t>(value));
  const bool encoder = sizes.family->encoder;
  out.f32(name + (encoder ? ".attention.layer_norm_epsilon"
                          : ".attention.layer_norm_rms_epsilon"),
          1e-5f);
  for (auto key : sizes.family->must_have)
    if (key == "expert_count" || key == "attention.sliding_window")
      out.u32(name + "." + std::string{key}, 3);
    else
      out.f32(name + "." + std::string{key}, 30.0f);
  if (name == "qwen3moe") {
    out.u32("qwen3moe.expert_used_count", 2);
    out.u32("qwen3moe.expert_feed_forward_length", 8);
  }
  auto add = [&](std::string tensor, std::vector<std::int64_t> shape) {
    out.f32_tensor(std::move(tensor), {shape.begin(), shape.end()});
  };
  add("token_embd.weight", {16, 6});
  if (!sizes.family->output_norm.empty())
    add("output_norm.weight", {16});
  if (encoder)
    add("token_embd_norm.weight", {16});
  if (sizes.family->biased_norms)
    add("token_embd_norm.bias", {16});
  if (sizes.family->learned_positions) {
    add("position_embd.weight", {16, 64});
    add("token_types.weight", {16, 2});
  }
  for (std::int32_t layer = 0; layer < layers; ++layer)
    for (const auto& step : sizes.family->block_of(layer))
      for (const auto& part : step.weights) {
        using model::block_op, model::width;
        const auto rows = sizes.of(part.rows);
        const bool down = part.rows == width::embedding;
        auto tensor = model::block_tensor_name(layer, part.name);
        if (model::is_norm(step.op))
          add(tensor, {rows});
        else if (step.op == block_op::experts)
          add(tensor, {down ? 8 : 16, rows, 3});
        else
          add(tensor, {sizes.of(step.from), rows});
        if (!part.bias.empty())
          add(model::block_tensor_name(layer, part.bias), {rows});
      }
  return out;
}

} // namespace troupe::test
