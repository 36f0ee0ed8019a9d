#include "engine/model/decoder.hpp"
#include "engine/model/encoder.hpp"
#include "engine/model/model_config.hpp"
#include "engine/model/rope_config.hpp"
#include "engine/ops/cpu/sizing_backend.hpp"
#include "engine/weights/gguf.hpp"

#include "tests/unit/model/zero_model.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>

using namespace troupe;
using namespace troupe::test;

namespace {

const char* const families[] = {"llama",  "qwen2",    "qwen3",   "gemma2",
                                "gemma3", "phi3",     "smollm3", "granite",
                                "olmo2",  "qwen3moe", "bert",    "modern-bert"};

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
constexpr float infinite = std::numeric_limits<float>::infinity();

result<model::model_config> read(const gguf_builder& builder,
                                 std::int32_t longest = 0) {
  auto bytes = builder.build();
  auto file = weights::gguf_file::parse(as_bytes(bytes), "zero.gguf");
  REQUIRE(file.has_value());
  return model::read_model_config(**file, longest);
}

model::model_config config_of(const gguf_builder& builder,
                              std::int32_t longest = 0) {
  auto config = read(builder, longest);
  INFO((config ? std::string{} : config.error().message));
  REQUIRE(config.has_value());
  return *config;
}

void refused(const gguf_builder& builder, errc code, const std::string& words) {
  auto config = read(builder);
  INFO(words);
  REQUIRE(!config);
  CHECK_THAT(config.error().message, Catch::Contains(words));
  CHECK(config.error().code == code);
}

gguf_builder with(const std::string& family, const std::string& key,
                  float value) {
  return zero_model(family).f32(family + "." + key, value);
}

gguf_builder with_count(const std::string& family, const std::string& key,
                        std::uint32_t value) {
  return zero_model(family).u32(family + "." + key, value);
}

/// Which layers have a window, 1 or 0 each.
std::string windows(const model::model_config& config) {
  std::string out;
  for (std::int32_t layer = 0; layer < config.layers; ++layer)
    out += config.attention_of(layer).window > 0 ? '1' : '0';
  return out;
}

gguf_builder with_factors(std::vector<float> longer, std::vector<float> brief) {
  auto file = zero_model("phi3");
  file.u32("phi3.rope.scaling.original_context_length", 32);
  file.f32("phi3.rope.scaling.attn_factor", 1.25f);
  auto add = [&](const std::string& name, const std::vector<float>& values) {
    file.f32_tensor(name, {values.size()});
    byte_writer bytes;
    for (auto value : values)
      bytes.put(value);
    file.tensor(name).data = bytes.bytes();
  };
  add("rope_factors_long.weight", longer);
  add("rope_factors_short.weight", brief);
  return file;
}

} // namespace

TEST_CASE("a file of every family's row is read and sized") {
  for (const std::string name : families) {
    INFO(name);
    auto bytes = zero_model(name).build();
    auto file = weights::gguf_file::parse(as_bytes(bytes), "zero.gguf");
    REQUIRE(file.has_value());
    auto config = model::read_model_config(**file);
    INFO((config ? std::string{} : config.error().message));
    REQUIRE(config.has_value());
    config->head_dim = 16; // what a pool of keys takes
    auto backend = ops::cpu::make_sizing_backend();
    if (config->family->encoder) {
      auto size = model::encoder_size(**file, *config, *backend, {4, 2});
      REQUIRE(size.has_value());
      CHECK(size->weights > 0);
      continue;
    }
    auto size = model::decoder_size(**file, *config, *backend, {4, 4, 16, 2});
    REQUIRE(size.has_value());
    CHECK(size->weights > 0);
  }
}

TEST_CASE("every tensor of a family's row has to be there and to fit") {
  for (const std::string name : families) {
    const auto whole = zero_model(name);
    for (const auto& one : whole.tensors) {
      auto without = whole;
      without.tensor(one.name).name = "something_else";
      refused(without, errc::corrupt, "'" + one.name + "' is missing");
      auto other = whole;
      auto& shape = other.tensor(one.name).shape;
      if (one.name == "token_embd.weight" || shape.back() == 1)
        continue;
      if (one.name == "position_embd.weight" ||
          one.name == "token_types.weight")
        continue; // may have more rows
      other.tensor(one.name).data.assign(shape.size() * 65536, '\0');
      shape.back() += 1;
      refused(other, errc::corrupt, "'" + one.name + "' has the shape");
    }
    auto more = whole;
    more.f32_tensor("blk.0.attn_sinks.weight", {4});
    refused(more, errc::unsupported, "'blk.0.attn_sinks.weight'");
  }
}

TEST_CASE("windows are where the family or the file has them") {
  CHECK(windows(config_of(zero_model("llama"))) == "0000000");
  CHECK(windows(config_of(
            with_count("llama", "attention.sliding_window", 9))) == "1111111");
  CHECK(windows(config_of(with_count("phi3", "attention.sliding_window", 0))) ==
        "0000000");
  CHECK(windows(config_of(zero_model("gemma2"))) == "1010101");
  const auto gemma = with_count("gemma3", "attention.sliding_window", 9);
  auto config = config_of(gemma);
  CHECK(windows(config) == "1111101");
  CHECK(config.attention_of(0).window == 9);
  CHECK(config.rope_of(0).theta == 10000.0f);
  auto file = gemma;
  file.f32("gemma3.rope.freq_base", 1e6f);
  file.string("gemma3.rope.scaling.type", "linear");
  file.f32("gemma3.rope.scaling.factor", 8.0f);
  config = config_of(file);
  CHECK(config.rope_of(5).theta == 1e6f);
  CHECK(config.rope_of(5).factors == std::vector<float>{8.0f, 8.0f});
  CHECK(config.rope_of(0).theta == 10000.0f);
  CHECK(config.rope_of(0).factors.empty());
  CHECK(
      config_of(file.f32("gemma3.rope.freq_base_swa", 5e3f)).rope_of(0).theta ==
      5e3f);
  CHECK(windows(config_of(with_count(
            "gemma2", "attention.sliding_window_pattern", 3))) == "1101101");
  auto listed = zero_model("gemma2");
  listed.booleans("gemma2.attention.sliding_window_pattern",
                  {false, true, true, false, true, false, false});
  CHECK(windows(config_of(listed)) == "0110100");
}

TEST_CASE("windows that make no sense are refused") {
  for (std::uint32_t value : {0x7fffffffu, 0x80000000u, ~0u}) {
    refused(with_count("llama", "attention.sliding_window", value),
            errc::corrupt, "sliding_window");
    refused(with_count("gemma2", "attention.sliding_window_pattern", value),
            errc::corrupt, "sliding_window_pattern");
  }
  for (std::size_t entries : {0u, 6u, 8u}) {
    auto file = zero_model("gemma2");
    file.booleans("gemma2.attention.sliding_window_pattern",
                  std::vector<bool>(entries, true));
    refused(file, errc::corrupt, "sliding_window_pattern");
  }
  refused(zero_model("gemma2").string("gemma2.attention.sliding_window_pattern",
                                      "1010"),
          errc::corrupt, "not a whole number");
}

TEST_CASE("scales and caps are read") {
  auto config = config_of(zero_model("granite")
                              .f32("granite.attention.scale", 0.125f)
                              .f32("granite.embedding_scale", 12.0f)
                              .f32("granite.residual_scale", 0.22f)
                              .f32("granite.logit_scale", 8.0f));
  CHECK(config.attention_of(0).scale == 0.125f);
  CHECK(config.embedding_scale == 12.0f);
  CHECK(config.residual_scale == 0.22f);
  CHECK(config.logit_scale == 0.125f);
  config = config_of(zero_model("gemma2"));
  CHECK(config.attention_of(0).scale == 0.5f);
  CHECK(config.attention_of(0).soft_cap == 30.0f);
  CHECK(config.final_soft_cap == 30.0f);
  CHECK(config.embedding_scale == 4.0f);
  config = config_of(zero_model("qwen2"));
  CHECK(config.attention_of(0).soft_cap == 0);
  CHECK(config.final_soft_cap == 0);
  CHECK(config.embedding_scale == 1);
}

TEST_CASE("scales and caps that are no numbers above 0 are refused") {
  for (float value : {nan_value, infinite, -infinite, 0.0f, -1.0f}) {
    for (std::string key : {"attention.scale", "embedding_scale",
                            "residual_scale", "logit_scale"})
      refused(with("granite", key, value), errc::corrupt, key);
    for (std::string key :
         {"attn_logit_softcapping", "final_logit_softcapping"})
      refused(with("gemma2", key, value), errc::corrupt, key);
    refused(with("gemma3", "rope.freq_base_swa", value), errc::corrupt,
            "rope.freq_base_swa");
  }
  refused(with("granite", "logit_scale", 1e-45f), errc::corrupt, "logit_scale");
  auto huge = zero_model("granite");
  huge.set("granite.embedding_scale", gguf_f64,
           byte_writer{}.put(1e300).bytes());
  refused(huge, errc::corrupt, "out of range");
}

TEST_CASE("what a family must say is asked for") {
  for (std::string key : {"attention.sliding_window", "attn_logit_softcapping",
                          "final_logit_softcapping"})
    refused(zero_model("gemma2").erase("gemma2." + key), errc::corrupt,
            key + "' is missing");
  for (std::string key :
       {"expert_count", "expert_used_count", "expert_feed_forward_length"})
    refused(zero_model("qwen3moe").erase("qwen3moe." + key), errc::corrupt,
            key + "' is missing");
}

TEST_CASE("the largest Gemmas scale by their share of the embedding") {
  for (auto [name, layers] : {std::pair{"gemma2", 46}, {"gemma3", 62}}) {
    CHECK(config_of(zero_model(name, layers, 16)).attention_of(1).scale ==
          0.5f); // 1 / sqrt(16 / 4)
    CHECK(config_of(zero_model(name, layers - 1, 16)).attention_of(1).scale ==
          0.25f);
  }
  CHECK(config_of(with("gemma3", "attention.scale", 0.3f))
            .attention_of(1)
            .scale == 0.3f);
}

TEST_CASE("every fourth layer of SmolLM3 has no rope") {
  auto config = config_of(zero_model("smollm3"));
  for (std::int32_t layer = 0; layer < 7; ++layer)
    CHECK(config.rope_of(layer).dims == (layer == 3 ? 0 : 4));
}

TEST_CASE("the numbers of experts are read and bounded") {
  auto config = config_of(zero_model("qwen3moe"));
  CHECK(config.experts == 3);
  CHECK(config.experts_used == 2);
  CHECK(config.expert_feed_forward == 8);
  CHECK(config.normalise_experts);
  CHECK_FALSE(
      config_of(
          zero_model("qwen3moe").boolean("qwen3moe.expert_weights_norm", false))
          .normalise_experts);
  for (std::string key :
       {"expert_count", "expert_used_count", "expert_feed_forward_length"})
    for (std::uint32_t value : {0u, 0x7fffffffu, 0x80000000u, ~0u})
      refused(with_count("qwen3moe", key, value), errc::corrupt, key);
  refused(with_count("qwen3moe", "expert_used_count", 4), errc::corrupt,
          "is 4, but there are 3 experts");
  refused(with_count("qwen3moe", "expert_count", 2), errc::corrupt, "shape");
  refused(with_count("qwen3moe", "expert_shared_count", 1), errc::unsupported,
          "expert_shared_count");
}

TEST_CASE("a part of a head's dimensions may turn, in pairs") {
  CHECK(config_of(with_count("phi3", "rope.dimension_count", 2)).rope.dims ==
        2);
  for (std::uint32_t value : {0u, 3u, 6u, ~0u})
    refused(with_count("phi3", "rope.dimension_count", value), errc::corrupt,
            "rope.dimension_count");
}

TEST_CASE("the longest context chooses among LongRoPE's factors") {
  const auto file = with_factors({3.0f, 4.0f}, {1.0f, 2.0f});
  auto config = config_of(file);
  CHECK(config.rope.factors == std::vector<float>{3.0f, 4.0f});
  CHECK(config.rope.scale == 1.25f);
  CHECK_FALSE(config.short_rope);
  config = config_of(file, 33);
  CHECK(config.rope.factors == std::vector<float>{3.0f, 4.0f});
  config = config_of(file, 32);
  CHECK(config.rope.factors == std::vector<float>{1.0f, 2.0f});
  CHECK(config.short_rope);
}

TEST_CASE("rope factors that are missing or no numbers are refused") {
  for (float value : {nan_value, infinite, 0.0f, -1.0f}) {
    refused(with_factors({1.0f, value}, {1.0f, 2.0f}), errc::corrupt,
            "rope_factors_long");
    refused(with_factors({1.0f, 2.0f}, {value, 2.0f}), errc::corrupt,
            "rope_factors_short");
    auto file = with_factors({3.0f, 4.0f}, {1.0f, 2.0f});
    refused(file.f32("phi3.rope.scaling.attn_factor", value), errc::corrupt,
            "attn_factor");
  }
  refused(with_factors({1.0f, 2.0f, 3.0f}, {1.0f, 2.0f}), errc::corrupt,
          "shape");
  auto file = with_factors({3.0f, 4.0f}, {1.0f, 2.0f});
  file.erase("phi3.rope.scaling.original_context_length");
  refused(file, errc::corrupt, "original_context_length' is missing");
}

TEST_CASE("YaRN's numbers are checked") {
  auto yarn = zero_model("qwen2");
  yarn.string("qwen2.rope.scaling.type", "yarn");
  refused(yarn, errc::corrupt, "rope.scaling.factor' is missing");
  yarn.f32("qwen2.rope.scaling.factor", 4.0f);
  auto config = config_of(yarn);
  CHECK(std::abs(config.rope.scale - (1 + 0.1 * std::log(4.0))) < 1e-7);
  for (float value : {nan_value, infinite, 0.0f, -1.0f})
    for (std::string key :
         {"rope.scaling.factor", "rope.scaling.yarn_beta_fast",
          "rope.scaling.yarn_beta_slow", "rope.scaling.attn_factor"}) {
      auto file = yarn;
      refused(file.f32("qwen2." + key, value), errc::corrupt, key);
    }
  yarn.u32("qwen2.rope.scaling.original_context_length", 0);
  refused(yarn, errc::corrupt, "original_context_length");
}

TEST_CASE("YaRN keeps fast pairs, stretches slow ones, goes over in a line") {
  // Turns within 1024 positions at base 10000: 163, 51, 16, 5.2, 1.6, 0.5, ...
  auto factors = model::yarn_factors({4, 1024, 32, 1}, 10000, 16);
  REQUIRE(factors.size() == 8);
  CHECK(factors[0] == 1);
  CHECK(factors[1] == 1);
  for (int i : {2, 3, 4}) {
    const double stretched = (i - 1) / 4.0;
    CHECK(std::abs(factors[i] - 1 / (stretched / 4 + 1 - stretched)) < 1e-6);
  }
  for (int i : {5, 6, 7})
    CHECK(factors[i] == 4);
  // However odd the numbers, factors are numbers.
  for (double theta : {1e-30, 1.0, 3e38})
    for (double context : {1.0, 1e9})
      for (auto factor : model::yarn_factors({8, context, 1, 1}, theta, 2))
        CHECK((factor >= 1 && factor <= 8));
}

TEST_CASE("no mutation of a family's file does harm") {
  std::mt19937_64 random{20'261'129};
  for (const std::string name : families) {
    const auto whole = zero_model(name).build();
    const auto header = whole.find(std::string(256, '\0'));
    int read = 0;
    for (int round = 0; round < 2'000; ++round) {
      auto bytes = whole;
      auto at = random() % header;
      bytes[at] = random() % 2 ? static_cast<char>(random())
                               : static_cast<char>(bytes[at] + 1);
      INFO(name << ", round " << round);
      auto file = weights::gguf_file::parse(as_bytes(bytes), "zero.gguf");
      if (!file)
        continue;
      if (auto config = model::read_model_config(**file)) {
        ++read;
        CHECK(config->experts_used <= config->experts);
        CHECK(config->rope.dims <= config->head_dim);
      }
    }
    CHECK(read > 0);
    CHECK(read < 2'000);
  }
}
