#include "engine/engine.hpp"

#include <catch2/catch.hpp>

#include <filesystem>
#include <string>

using namespace troupe;
using namespace troupe::engine;

namespace fs = std::filesystem;

namespace {

const fs::path tiny = fs::path{TROUPE_SOURCE_DIR} / "tests/reference/tiny";

options small(const fs::path& model) {
  options o;
  o.model = model;
  o.threads = 1;
  o.max_num_batched_tokens = 128;
  o.max_num_seqs = 64;
  o.kv_cache_bytes = 4 << 20;
  return o;
}

} // namespace

TEST_CASE("what is measured is what a loaded engine takes") {
  for (std::string name :
       {"bf16-llama3.gguf", "f32-tied.gguf", "q4_0-untied.gguf",
        "q4_1-linear.gguf", "q8_0-mha.gguf", "llama-sharded-f16", "llama-awq",
        "llama-int8", "llama-fp8"}) {
    INFO(name);
    auto o = small(tiny / name);
    auto measured = measure(o, 1 << 30);
    REQUIRE(measured.has_value());
    auto loaded = troupe::engine::engine::load(o, {});
    REQUIRE(loaded.has_value());
    const auto& about = (*loaded)->about();
    CHECK(measured->weight_bytes == about.weight_bytes);
    CHECK(measured->kv_cache_bytes == about.kv_cache_bytes);
    CHECK(measured->kv_blocks == about.kv_blocks);
    CHECK(measured->kv_tokens() == about.kv_blocks * 16);
    CHECK(measured->max_model_len == (*loaded)->card().max_model_len);
    CHECK(measured->kv_block_bytes * measured->kv_blocks ==
          measured->kv_cache_bytes);
    CHECK(measured->workspace_bytes > 0);
  }
}

TEST_CASE("weights that are quantised when they are loaded are measured so") {
  auto o = small(tiny / "llama-bf16");
  auto stored = measure(o, 1 << 30);
  o.quantization = "q4_0";
  auto quantised = measure(o, 1 << 30);
  auto loaded = troupe::engine::engine::load(o, {});
  REQUIRE(stored.has_value());
  REQUIRE(quantised.has_value());
  REQUIRE(loaded.has_value());
  CHECK(quantised->weight_bytes < stored->weight_bytes);
  CHECK(quantised->weight_bytes == (*loaded)->about().weight_bytes);
}

TEST_CASE("a share of the memory is what all takes together") {
  auto o = small(tiny / "f32-tied.gguf");
  o.kv_cache_bytes = 0;
  o.max_num_seqs = 1024;
  o.memory_utilization = 0.5;
  auto use = measure(o, 16 << 20);
  REQUIRE(use.has_value());
  CHECK(use->bytes() <= (16 << 20) / 2);
  CHECK(use->bytes() > (16 << 20) / 2 - use->kv_block_bytes);
  auto none = measure(o, 1 << 20);
  REQUIRE(!none);
  CHECK(none.error().message.find("gpu_memory_utilization") !=
        std::string::npos);
}

TEST_CASE("the KV cache that nobody sized is a quarter of what is free") {
  auto o = small(tiny / "f32-tied.gguf");
  o.kv_cache_bytes = 0;
  o.max_num_seqs = 1024;
  auto less = measure(o, 1 << 20);
  auto more = measure(o, 2 << 20);
  REQUIRE(less.has_value());
  REQUIRE(more.has_value());
  CHECK(less->kv_cache_bytes <= (1 << 20) / 4);
  CHECK(less->kv_cache_bytes > (1 << 20) / 4 - less->kv_block_bytes);
  CHECK(more->kv_blocks > less->kv_blocks);
}

TEST_CASE("what cannot be loaded cannot be measured") {
  auto o = small("/nowhere/model.gguf");
  CHECK(measure(o, 1 << 30).error().code == errc::not_found);
  o = small(tiny / "f32-tied.gguf");
  o.max_model_len = 1u << 23;
  CHECK_FALSE(measure(o, 1 << 30).has_value());
}
