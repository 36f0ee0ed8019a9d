#pragma once

#include "tests/unit/weights/gguf_builder.hpp"

namespace troupe::test {

/// A complete Llama file of zeros, small enough to be broken in every way: two
/// layers, embedding 16, 4 heads of 4 and 2 kv heads, vocabulary of 6.
inline gguf_builder small_model() {
  gguf_builder out;
  out.string("general.architecture", "llama");
  out.u32("llama.block_count", 2);
  out.u32("llama.embedding_length", 16);
  out.u32("llama.feed_forward_length", 24);
  out.u32("llama.context_length", 32);
  out.u32("llama.vocab_size", 6);
  out.u32("llama.attention.head_count", 4);
  out.u32("llama.attention.head_count_kv", 2);
  out.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  out.f32("llama.rope.freq_base", 10000.0f);
  out.u32("llama.rope.dimension_count", 4);
  out.string("tokenizer.ggml.model", "gpt2");
  out.string("tokenizer.ggml.pre", "smollm");
  out.strings("tokenizer.ggml.tokens",
              {"<|endoftext|>", "<|im_end|>", "a", "b", "ab", "<tool>"});
  out.i32s("tokenizer.ggml.token_type", {3, 3, 1, 1, 1, 4});
  out.strings("tokenizer.ggml.merges", {"a b"});
  out.u32("tokenizer.ggml.bos_token_id", 0);
  out.u32("tokenizer.ggml.eos_token_id", 0);
  out.f32_tensor("token_embd.weight", {16, 6});
  out.f32_tensor("output_norm.weight", {16});
  for (std::string block : {"blk.0.", "blk.1."}) {
    out.f32_tensor(block + "attn_norm.weight", {16});
    out.f32_tensor(block + "attn_q.weight", {16, 16});
    out.f32_tensor(block + "attn_k.weight", {16, 8});
    out.f32_tensor(block + "attn_v.weight", {16, 8});
    out.f32_tensor(block + "attn_output.weight", {16, 16});
    out.f32_tensor(block + "ffn_norm.weight", {16});
    out.f32_tensor(block + "ffn_gate.weight", {16, 24});
    out.f32_tensor(block + "ffn_up.weight", {16, 24});
    out.f32_tensor(block + "ffn_down.weight", {24, 16});
  }
  return out;
}

} // namespace troupe::test
