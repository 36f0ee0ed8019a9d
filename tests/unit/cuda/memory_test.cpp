#include "cuda/emulated_backend.hpp"
#include "engine/model/encoder.hpp"
#include "engine/ops/cpu/sizing_backend.hpp"
#include "engine/ops/dense_layout.hpp"
#include "tests/unit/model/feeding.hpp"
#include "tests/unit/model/reference_file.hpp"

#include <catch2/catch.hpp>

#include <numeric>

using namespace troupe;
using namespace troupe::test;

// What a GPU's memory is taken for: all of it is in the plan, and steps take
// none.

namespace {

const char* const decoders[] = {"llama",   "mistral", "qwen2",   "qwen3",
                                "gemma2",  "gemma3",  "phi3",    "smollm3",
                                "granite", "olmo2",   "qwen3moe"};

const char* const encoders[] = {"bert-embedding",        "bert-score",
                                "xlm-roberta-embedding", "xlm-roberta-score",
                                "modernbert-embedding",  "modernbert-score",
                                "qwen3-embedding"};

constexpr model::decoder_limits limits{8, 8, 4, 8, 2, 20};
constexpr model::encoder_limits pooled{24, 4};

/// Two sequences at the end of all that they may have; they share blocks.
engine::step_plan largest_step(std::int32_t vocabulary) {
  engine::step_plan out;
  out.tables = {{0, 1, 2, 3, 4}, {0, 1, 2, 3, 5}};
  for (std::int32_t row = 0; row < limits.rows_max; ++row) {
    out.tokens.push_back((7 * row + 3) % vocabulary);
    out.positions.push_back(16 + row % 4);
    out.sequences.push_back(row / 4);
    out.logit_rows.push_back(row);
  }
  return out;
}

} // namespace

TEST_CASE("a GPU's memory is what was planned, and steps allocate none") {
  for (const std::string name : decoders)
    for (std::int64_t blocks_wanted : {0, 1'000'000}) { // attention in parts
      INFO(name << ", " << blocks_wanted);
      const auto path = reference_folder() / "families" / (name + ".gguf");
      cuda::emulated_usage usage;
      auto loaded =
          load_model(path,
                     cuda::make_emulated_backend(
                         {.blocks_wanted = blocks_wanted, .usage = &usage}),
                     limits);
      auto file = model::open_checkpoint(path);
      REQUIRE(file.has_value());
      auto sizes = ops::cpu::make_sizing_backend(ops::cpu::kept_by::gpu);
      auto planned = model::decoder_size(**file, loaded.config, *sizes, limits);
      REQUIRE(planned.has_value());
      CHECK(planned->weights == loaded.decoder->weight_bytes());
      CHECK(planned->kv_cache == loaded.decoder->kv_cache_bytes());
      CHECK(usage.bytes == planned->weights + planned->kv_cache +
                               planned->workspace + ops::gpu_workspace_bytes);
      CHECK(usage.bytes_most == usage.bytes);
      const auto before = usage.allocations;
      for (int i = 0; i < 2; ++i) {
        loaded.decoder->submit(largest_step(loaded.config.vocabulary));
        loaded.decoder->collect();
      }
      CHECK(usage.allocations == before);
    }
}

TEST_CASE("so is the memory of a model that pools") {
  for (const std::string name : encoders) {
    INFO(name);
    const auto path = reference_folder() / "encoders" / name;
    auto file = model::open_checkpoint(path);
    REQUIRE(file.has_value());
    auto config = model::read_model_config(**file);
    REQUIRE(config.has_value());
    cuda::emulated_usage usage;
    auto backend = cuda::make_emulated_backend({.usage = &usage});
    auto made = model::encoder::make(**file, *config, *backend, pooled, {});
    REQUIRE(made.has_value());
    auto sizes = ops::cpu::make_sizing_backend(ops::cpu::kept_by::gpu);
    auto planned = model::encoder_size(**file, *config, *sizes, pooled);
    REQUIRE(planned.has_value());
    CHECK(usage.bytes ==
          planned->weights + planned->workspace + ops::gpu_workspace_bytes);
    const auto before = usage.allocations;
    std::vector<token_id> ids(6);
    std::iota(ids.begin(), ids.end(), 3);
    const std::vector<engine::whole_sequence> texts(4, {ids});
    (*made)->run(texts);
    const std::vector<token_id> all_rows(24, 5);
    const std::vector<engine::whole_sequence> one{{all_rows}};
    (*made)->run(one);
    CHECK(usage.allocations == before);
  }
}
