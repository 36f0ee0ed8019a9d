#include "engine/model/decoder.hpp"

#include "tests/unit/model/compare_logits.hpp"
#include "tests/unit/model/naive_backend.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::test;

namespace {

const char* const tiny_models[] = {"f32-tied", "bf16-llama3", "q8_0-mha",
                                   "q4_0-untied", "q4_1-linear"};

/// The reference rounds to float inside its sums, the naive backend once per
/// operation; on these models (logits up to 9) they were seen 3.2e-5 apart.
constexpr float tolerance = 1e-4f;

std::filesystem::path tiny(const std::string& name) {
  return reference_folder() / "tiny" / (name + ".gguf");
}

loaded_model load_naive(const std::string& name) {
  return load_model(tiny(name), make_naive_backend());
}

std::vector<token_id> ids_of(const std::string& name) {
  return read_reference("tiny/" + name + ".ref").sequences.front().ids;
}

} // namespace

TEST_CASE("logits of tiny models are those of the reference") {
  for (const std::string name : tiny_models) {
    INFO(name);
    auto model = load_naive(name);
    auto reference = read_reference("tiny/" + name + ".ref");
    CHECK(worst_difference(model, reference) < tolerance);
  }
}

TEST_CASE("a prompt in chunks gives the bits of the whole prompt") {
  for (const std::string name : {"bf16-llama3", "q4_0-untied"}) {
    auto model = load_naive(name);
    fed_sequence whole{ids_of(name), {0, 1, 2, 3, 4}, 0, {}};
    feed_alone(*model.decoder, whole, 64);
    for (std::size_t chunk : {1, 3, 8, 17}) {
      fed_sequence parts{whole.ids, {31, 3, 16, 9, 5}, 0, {}};
      feed_alone(*model.decoder, parts, chunk);
      CHECK(parts.logits == whole.logits);
    }
  }
}

TEST_CASE("a sequence in a batch gives the bits that it gives alone") {
  auto model = load_naive("q4_1-linear");
  auto ids = ids_of("q4_1-linear");
  std::vector<fed_sequence> alone;
  for (std::size_t i = 0; i < 3; ++i) {
    alone.push_back({{ids.begin() + 7 * i, ids.end()}, {0, 1, 2, 3, 4}, 0, {}});
    feed_alone(*model.decoder, alone.back(), 64);
  }
  auto batched = alone;
  for (std::size_t i = 0; i < 3; ++i) {
    batched[i].table = {int(20 - i), int(10 - i), int(5 + 16 * (i % 2) + i),
                        int(0 + i), int(28 + i)};
    batched[i].done = 0;
    batched[i].logits.clear();
  }
  auto left = [&](std::size_t i) {
    return batched[i].ids.size() - batched[i].done;
  };
  feed(*model.decoder, {{&batched[0], 10}});
  feed(*model.decoder, {{&batched[0], 1}, {&batched[1], 12}, {&batched[2], 5}});
  feed(*model.decoder, {{&batched[2], 1}, {&batched[0], 9}});
  feed(*model.decoder, {{&batched[1], left(1)}, {&batched[2], left(2)}});
  feed(*model.decoder, {{&batched[0], left(0)}});
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(batched[i].logits == alone[i].logits);
}

TEST_CASE("only the rows that are asked for give logits") {
  auto model = load_naive("f32-tied");
  auto ids = ids_of("f32-tied");
  fed_sequence all{ids, {0, 1, 2, 3, 4}, 0, {}};
  feed_alone(*model.decoder, all, 64);
  engine::step_plan plan;
  plan.tables = {{5, 6, 7, 8, 9}};
  for (std::size_t i = 0; i < ids.size(); ++i) {
    plan.tokens.push_back(ids[i]);
    plan.positions.push_back(static_cast<std::int32_t>(i));
    plan.sequences.push_back(0);
  }
  plan.logit_rows = {2, 39};
  model.decoder->submit(plan);
  auto logits = model.decoder->collect();
  std::size_t width = model.decoder->vocabulary();
  REQUIRE(logits.size() == 2 * width);
  CHECK(std::equal(logits.begin(), logits.begin() + width,
                   all.logits[2].begin()));
  CHECK(
      std::equal(logits.begin() + width, logits.end(), all.logits[39].begin()));
  plan.logit_rows = {};
  model.decoder->submit(plan);
  CHECK(model.decoder->collect().empty());
  model.decoder->submit({});
  CHECK(model.decoder->collect().empty());
}

TEST_CASE("each weight is read once per step, whatever the number of rows") {
  // Of 32-bit floats in the naive backend; hidden 64, 2 layers.
  constexpr std::uint64_t layer =
      (64 * (64 + 2 * 32) + 64 * 64 + 3 * 64 * 96) * sizeof(float);
  auto model = load_naive("f32-tied");
  std::uint64_t once = 2 * layer + model.config.vocabulary * 64 * sizeof(float);
  CHECK(model.decoder->weight_bytes_read() == 0);
  fed_sequence sequence{ids_of("f32-tied"), {0, 1, 2, 3, 4}, 0, {}};
  feed(*model.decoder, {{&sequence, 1}});
  CHECK(model.decoder->weight_bytes_read() == once);
  feed(*model.decoder, {{&sequence, 30}});
  CHECK(model.decoder->weight_bytes_read() == 2 * once);
  feed(*model.decoder, {{&sequence, 3}});
  CHECK(model.decoder->weight_bytes_read() == 3 * once);
  constexpr auto norms = 5 * 64 * sizeof(float);
  CHECK(model.decoder->weight_bytes() == once + norms);
}

TEST_CASE("collecting again gives the same logits without another pass") {
  auto model = load_naive("q8_0-mha");
  fed_sequence sequence{ids_of("q8_0-mha"), {0, 1, 2, 3, 4}, 0, {}};
  feed(*model.decoder, {{&sequence, 2}});
  auto read = model.decoder->weight_bytes_read();
  auto again = model.decoder->collect();
  CHECK(model.decoder->weight_bytes_read() == read);
  CHECK(std::equal(again.end() - model.decoder->vocabulary(), again.end(),
                   sequence.logits[1].begin()));
}

TEST_CASE("progress of loading rises to the bytes of all tensors") {
  auto file = weights::gguf_file::open(tiny("q4_0-untied"));
  REQUIRE(file.has_value());
  auto config = model::read_model_config(**file);
  REQUIRE(config.has_value());
  std::uint64_t sum = 0;
  for (const auto& tensor : (*file)->tensors())
    sum += tensor.bytes.size();
  std::uint64_t last = 0;
  bool rising = true;
  auto backend = make_naive_backend();
  auto decoder =
      model::decoder::make(**file, *config, *backend, small_limits,
                           [&](std::uint64_t done, std::uint64_t total) {
                             rising = rising && done > last && total == sum;
                             last = done;
                           });
  REQUIRE(decoder.has_value());
  CHECK(rising);
  CHECK(last == sum);
}

TEST_CASE("limits of zero are refused and KV memory is as asked for") {
  auto file = weights::gguf_file::open(tiny("f32-tied"));
  REQUIRE(file.has_value());
  auto config = model::read_model_config(**file);
  REQUIRE(config.has_value());
  auto backend = make_naive_backend();
  for (model::decoder_limits limits :
       {model::decoder_limits{0, 1, 1, 1}, model::decoder_limits{1, 0, 1, 1},
        model::decoder_limits{1, 1, 0, 1}, model::decoder_limits{1, 1, 1, 0}})
    CHECK(model::decoder::make(**file, *config, *backend, limits, {})
              .error()
              .code == errc::invalid_argument);
  auto block = model::kv_block_bytes(*config, *backend, 8);
  REQUIRE(block.has_value());
  CHECK(*block == 2 * 2 * 8 * 2 * 16 * sizeof(float));
  auto decoder =
      model::decoder::make(**file, *config, *backend, small_limits, {});
  REQUIRE(decoder.has_value());
  CHECK((*decoder)->kv_cache_bytes() == 32 * *block);
}
