#include "engine/model/model_config.hpp"

#include "engine/model/model_card.hpp"
#include "engine/weights/gguf.hpp"
#include "tests/unit/model/small_model.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>

using namespace troupe;
using namespace troupe::test;

namespace {

result<model::model_config> read(const gguf_builder& builder) {
  auto bytes = builder.build();
  auto file = weights::gguf_file::parse(as_bytes(bytes), "small.gguf");
  REQUIRE(file.has_value());
  return model::read_model_config(**file);
}

void refused(const gguf_builder& builder, errc code, const std::string& words) {
  auto config = read(builder);
  REQUIRE(!config);
  CHECK(config.error().message.rfind("small.gguf: ", 0) == 0);
  CHECK_THAT(config.error().message, Catch::Contains(words));
  CHECK(config.error().code == code);
}

/// The small model with one number changed.
gguf_builder with(const std::string& key, std::uint32_t value) {
  return small_model().u32(key, value);
}

} // namespace

TEST_CASE("a file may say how its rope pairs lie") {
  auto interleaved = [](const gguf_builder& builder) {
    auto bytes = builder.build();
    auto file = weights::gguf_file::parse(as_bytes(bytes), "small.gguf");
    return model::read_model_config(**file).value().rope.interleaved;
  };
  CHECK(interleaved(small_model()));
  CHECK(!interleaved(small_model().boolean("troupe.rope_interleaved", false)));
}

TEST_CASE("a configuration is read from the metadata") {
  auto config = read(small_model());
  REQUIRE(config.has_value());
  CHECK(config->family->name == "llama");
  CHECK(config->layers == 2);
  CHECK(config->embedding == 16);
  CHECK(config->feed_forward == 24);
  CHECK(config->heads == 4);
  CHECK(config->kv_heads == 2);
  CHECK(config->head_dim == 4);
  CHECK(config->vocabulary == 6);
  CHECK(config->context_length == 32);
  CHECK(config->norm_epsilon == 1e-5f);
  CHECK(config->tied_embeddings);
  CHECK(config->rope.theta == 10000.0f);
  CHECK(config->rope.dims == 4);
  CHECK(config->rope.interleaved);
  CHECK(config->rope.factors.empty());
  CHECK(config->of(model::slot::qkv) == 32);
  CHECK(config->of(model::slot::gate_up) == 48);
}

TEST_CASE("what may be missing has the format's defaults") {
  auto config = read(small_model()
                         .erase("llama.vocab_size")
                         .erase("llama.rope.freq_base")
                         .erase("llama.rope.dimension_count"));
  REQUIRE(config.has_value());
  CHECK(config->vocabulary == 6);
  CHECK(config->rope.theta == 10000.0f);
  CHECK(config->rope.dims == 4);
}

TEST_CASE("what must be there is asked for by name") {
  for (const char* key :
       {"general.architecture", "llama.block_count", "llama.embedding_length",
        "llama.feed_forward_length", "llama.context_length",
        "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon"})
    refused(small_model().erase(key), errc::corrupt,
            std::string{"'"} + key + "' is missing");
}

TEST_CASE("values of another type are refused, not taken for missing") {
  refused(small_model().string("llama.block_count", "2"), errc::corrupt,
          "not a whole number");
  refused(small_model().u32("llama.rope.freq_base", 10000), errc::corrupt,
          "not a number with a fraction");
  refused(small_model().u32("general.architecture", 1), errc::corrupt,
          "not a text");
}

TEST_CASE("an unknown family is refused by name, without its control bytes") {
  refused(small_model().string("general.architecture", "mamba"),
          errc::unsupported, "(mamba)");
  refused(small_model().string("general.architecture", "a\x1b[31mb"),
          errc::unsupported, "(a?[31mb)");
}

TEST_CASE("zero and huge sizes are refused") {
  for (std::string name :
       {"block_count", "embedding_length", "feed_forward_length",
        "context_length", "vocab_size", "attention.head_count",
        "attention.head_count_kv", "rope.dimension_count"})
    for (std::uint32_t value : {0u, 0x7fffffffu, 0x80000000u, ~0u})
      refused(with("llama." + name, value), errc::corrupt, name);
  auto wide = small_model();
  wide.set("llama.attention.head_count", gguf_u64,
           byte_writer{}.put(~std::uint64_t{0}).bytes());
  refused(wide, errc::corrupt, "head_count");
  wide.set("llama.attention.head_count", gguf_i64,
           byte_writer{}.put(std::int64_t{-4}).bytes());
  refused(wide, errc::corrupt, "is -4");
}

TEST_CASE("heads that do not divide are refused") {
  refused(with("llama.attention.head_count", 3), errc::corrupt, "divide");
  refused(with("llama.attention.head_count_kv", 3), errc::corrupt, "divide");
  refused(with("llama.attention.head_count_kv", 8), errc::corrupt, "divide");
  refused(with("llama.attention.head_count", 16), errc::corrupt, "rope pairs");
  refused(with("llama.attention.key_length", 1u << 23), errc::corrupt,
          "too many");
  refused(with("llama.attention.value_length", 2), errc::unsupported,
          "value_length");
}

TEST_CASE("heads may be wider than their share of the embedding") {
  auto file = small_model();
  file.u32("llama.attention.key_length", 8);
  file.u32("llama.attention.value_length", 8);
  file.u32("llama.rope.dimension_count", 8);
  for (std::string block : {"blk.0.", "blk.1."}) {
    file.tensor(block + "attn_q.weight").shape = {16, 32};
    file.tensor(block + "attn_k.weight").shape = {16, 16};
    file.tensor(block + "attn_v.weight").shape = {16, 16};
    file.tensor(block + "attn_output.weight").shape = {32, 16};
    for (std::string name : {"attn_q", "attn_k", "attn_v", "attn_output"})
      file.tensor(block + name + ".weight").data.assign(32 * 16 * 4, '\0');
  }
  auto config = read(file);
  REQUIRE(config.has_value());
  CHECK(config->head_dim == 8);
  CHECK(config->of(model::slot::attended) == 32);
}

TEST_CASE("rope is finite and of a kind that is computed") {
  auto nan = std::numeric_limits<float>::quiet_NaN();
  auto infinite = std::numeric_limits<float>::infinity();
  for (float value : {nan, infinite, -infinite, 0.0f, -1.0f}) {
    refused(small_model().f32("llama.rope.freq_base", value), errc::corrupt,
            "finite number above 0");
    auto scaled = small_model().string("llama.rope.scaling.type", "linear");
    refused(scaled.f32("llama.rope.scaling.factor", value), errc::corrupt,
            "finite number above 0");
    auto factors = small_model().f32_tensor("rope_freqs.weight", {2});
    factors.tensor("rope_freqs.weight").data =
        byte_writer{}.put(1.0f).put(value).bytes();
    refused(factors, errc::corrupt, "finite number above 0");
    refused(small_model().f32("llama.attention.layer_norm_rms_epsilon", value),
            errc::corrupt, "layer_norm_rms_epsilon");
  }
  refused(small_model().set("llama.rope.freq_base", gguf_f64,
                            byte_writer{}.put(1e300).bytes()),
          errc::corrupt, "out of range");
  refused(small_model().string("llama.rope.scaling.type", "dynamic"),
          errc::unsupported, "(dynamic)");
  refused(small_model().string("llama.rope.scaling.type", "longrope"),
          errc::unsupported, "(longrope)");
  refused(with("llama.rope.dimension_count", 2), errc::unsupported,
          "dimension_count");
}

TEST_CASE("rope factors come from a tensor or from linear scaling") {
  auto file = small_model().f32_tensor("rope_freqs.weight", {2});
  file.tensor("rope_freqs.weight").data =
      byte_writer{}.put(1.0f).put(8.0f).bytes();
  auto config = read(file);
  REQUIRE(config.has_value());
  CHECK(config->rope.factors == std::vector<float>{1.0f, 8.0f});
  config = read(small_model()
                    .string("llama.rope.scaling.type", "linear")
                    .f32("llama.rope.scaling.factor", 4.0f));
  REQUIRE(config.has_value());
  CHECK(config->rope.factors == std::vector<float>{4.0f, 4.0f});
}

TEST_CASE("attention is in bf16 if all that makes q, k and v is") {
  auto file = small_model();
  CHECK_FALSE(read(file)->bf16_attention);
  auto store = [&](const std::string& name, std::uint32_t type) {
    file.tensor("blk." + name + ".weight").type = type;
  };
  for (const char* name :
       {"0.attn_q", "0.attn_k", "0.attn_v", "1.attn_q", "1.attn_k"})
    store(name, gguf_tensor_bf16);
  CHECK_FALSE(read(file)->bf16_attention);
  store("1.attn_v", gguf_tensor_bf16);
  CHECK(read(file)->bf16_attention);
  store("0.attn_k", gguf_tensor_f16);
  CHECK_FALSE(read(file)->bf16_attention);
}

TEST_CASE("tensors have the shapes that the metadata says") {
  refused(with("llama.vocab_size", 7), errc::corrupt,
          "is 7, but the embedding has 6 rows");
  refused(with("llama.feed_forward_length", 23), errc::corrupt,
          "[16, 24], not [16, 23]");
  refused(with("llama.block_count", 3), errc::corrupt,
          "'blk.2.attn_norm.weight' is missing");
  refused(
      with("llama.embedding_length", 32).erase("llama.rope.dimension_count"),
      errc::corrupt, "shape");
  auto file = small_model();
  file.tensor("blk.1.attn_k.weight").shape = {8, 16};
  refused(file, errc::corrupt, "'blk.1.attn_k.weight' has the shape [8, 16]");
  file = small_model();
  file.tensor("output_norm.weight").name = "output_norm.bias";
  refused(file, errc::corrupt, "'output_norm.weight' is missing");
  file = small_model();
  file.tensor("blk.0.ffn_norm.weight").type = gguf_tensor_f16;
  refused(file, errc::unsupported, "not of type F32");
  file = small_model().f32_tensor("output.weight", {16, 5});
  refused(file, errc::corrupt, "'output.weight' has the shape");
}

TEST_CASE("tensors that would be left unread are refused") {
  for (const char* name : {"blk.0.attn_q.bias", "blk.2.attn_norm.weight",
                           "blk.0.ffn_gate_exps.weight"})
    refused(small_model().f32_tensor(name, {16}), errc::unsupported, name);
}

TEST_CASE("features that change the result are refused by name") {
  for (std::string name :
       {"attention.scale", "attention.clamp_kqv", "expert_count", "logit_scale",
        "attn_logit_softcapping", "rope.freq_base_swa"})
    refused(with("llama." + name, 1), errc::unsupported, name);
}

TEST_CASE("no mutation of a model file does harm") {
  const std::uint64_t seed = 20'261'123;
  INFO("seed " << seed);
  std::mt19937_64 random{seed};
  const auto whole = small_model().build();
  // The header alone: what follows is zeros.
  const auto header = whole.find(std::string(256, '\0'));
  int configs = 0;
  int cards = 0;
  for (int round = 0; round < 20'000; ++round) {
    auto bytes = whole;
    for (auto edits = 1 + random() % 2; edits > 0; --edits) {
      auto at = random() % header;
      bytes[at] = random() % 2 ? static_cast<char>(random())
                               : static_cast<char>(bytes[at] + 1);
    }
    INFO("round " << round);
    auto file = weights::gguf_file::parse(as_bytes(bytes), "small.gguf");
    if (!file)
      continue;
    auto config = model::read_model_config(**file);
    if (!config)
      continue;
    ++configs;
    auto card = model::read_model_card(**file, *config);
    if (!card)
      continue;
    ++cards;
    for (auto id : card->eos_ids)
      CHECK((id >= 0 && id < config->vocabulary));
    CHECK(card->tokenizer.vocabulary.size() == card->vocabulary_size);
  }
  CHECK(configs > 100);
  CHECK(cards > 100);
  CHECK(cards < 20'000);
}
