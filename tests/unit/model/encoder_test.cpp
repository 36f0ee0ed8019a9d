#include "engine/model/encoder.hpp"
#include "engine/model/open_checkpoint.hpp"
#include "engine/ops/cpu/cpu_backend.hpp"
#include "engine/ops/cpu/sizing_backend.hpp"
#include "engine/weights/converted_checkpoint.hpp"

#include "tests/unit/model/instruction_sets.hpp"
#include "tests/unit/model/naive_backend.hpp"
#include "tests/unit/model/vectors_file.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::test;

namespace {

const char* const encoders[] = {"bert-embedding",        "bert-score",
                                "xlm-roberta-embedding", "xlm-roberta-score",
                                "modernbert-embedding",  "modernbert-score",
                                "qwen3-embedding"};

/// The reference rounds to float inside its sums, the naive backend once per
/// operation. Seen: below 5e-6.
constexpr float naive_tolerance = 1e-5f;

/// The CPU keeps keys and values of models in F32 in f16; seen: 9e-4.
constexpr float cpu_tolerance = 5e-3f;
/// Of models in bf16 it rounds what it multiplies to that; seen: 0.018.
constexpr float bf16_tolerance = 0.03f;

struct loaded_encoder {
  std::unique_ptr<ops::backend> backend;
  model::model_config config;
  std::unique_ptr<model::encoder> encoder;

  std::vector<float> run(const std::vector<reference_vector>& all) {
    std::vector<engine::whole_sequence> step;
    for (const auto& one : all)
      step.push_back({one.ids, one.second_text});
    const auto out = encoder->run(step);
    REQUIRE(out.size() == all.size() * encoder->size());
    return {out.begin(), out.end()};
  }
};

std::filesystem::path folder() {
  return std::filesystem::path{TROUPE_SOURCE_DIR} / "tests/reference/encoders";
}

loaded_encoder
load(const std::string& name, std::unique_ptr<ops::backend> backend,
     weights::matrix_form form = weights::matrix_form::as_stored) {
  auto opened = model::open_checkpoint(folder() / name);
  INFO((opened ? std::string{} : opened.error().message));
  REQUIRE(opened.has_value());
  const auto file = weights::convert_matrices(std::move(*opened), form);
  auto config = model::read_model_config(*file);
  INFO((config ? std::string{} : config.error().message));
  REQUIRE(config.has_value());
  auto made = model::encoder::make(*file, *config, *backend, {160, 8}, {});
  INFO((made ? std::string{} : made.error().message));
  REQUIRE(made.has_value());
  return {std::move(backend), *config, std::move(*made)};
}

std::unique_ptr<ops::backend> cpu(ops::cpu::instruction_set isa, int threads) {
  return ops::cpu::make_backend({threads, isa}).value();
}

float worst_of(const std::vector<float>& got,
               const std::vector<float>& expected) {
  REQUIRE(got.size() == expected.size());
  float worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    worst = std::max(worst, std::abs(got[i] - expected[i]) /
                                std::max(1.0f, std::abs(expected[i])));
  return worst;
}

} // namespace

TEST_CASE("every encoder gives the vectors of the reference") {
  for (const std::string name : encoders) {
    const auto reference = read_vectors("encoders/" + name + ".vectors");
    for (const std::string form : {"", ".gguf"}) {
      auto model = load(name + form, make_naive_backend());
      for (const auto& one : reference) {
        INFO(name << form << ", " << one.ids.size() << " tokens");
        CHECK(worst_of(model.run({one}), one.vector) < naive_tolerance);
      }
    }
  }
}

TEST_CASE("on the CPU an encoder's vector depends on its text alone") {
  for (const std::string name : encoders) {
    const auto reference = read_vectors("encoders/" + name + ".vectors");
    std::vector<std::vector<float>> first;
    for (auto isa : sets_of_this_machine())
      for (int threads : {1, 2}) {
        INFO(name << ", instruction set " << static_cast<int>(isa));
        auto model = load(name, cpu(isa, threads));
        auto exact = load(name, cpu(isa, threads), weights::matrix_form::f32);
        std::vector<float> alone;
        std::vector<std::vector<float>> each;
        for (const auto& one : reference) {
          each.push_back(model.run({one}));
          CHECK(worst_of(each.back(), one.vector) < bf16_tolerance);
          CHECK(worst_of(exact.run({one}), one.vector) < cpu_tolerance);
          alone.insert(alone.end(), each.back().begin(), each.back().end());
        }
        CHECK((model.run(reference) == alone)); // not printed: they are many
        auto turned = reference;
        std::reverse(turned.begin(), turned.end());
        const auto last = model.run(turned);
        CHECK((std::vector<float>(last.end() - model.encoder->size(),
                                  last.end()) == each.front()));
        if (first.empty())
          first = each;
        CHECK((first == each));
      }
  }
}

TEST_CASE("the second text counts where the model has types") {
  auto with_types = load("bert-score", make_naive_backend());
  auto without = load("xlm-roberta-score", make_naive_backend());
  auto one = read_vectors("encoders/bert-score.vectors").at(2);
  auto other = one;
  other.second_text = 0;
  CHECK(with_types.run({one}) != with_types.run({other}));
  CHECK(without.run({one}) == without.run({other}));
}

TEST_CASE("what an encoder is stands in its configuration") {
  using kind = text::pooled_output::kind;
  const auto bert = load("bert-embedding", make_naive_backend()).config;
  CHECK(bert.context_length == 72); // sentence_bert_config.json
  CHECK(bert.pooling.output ==
        text::pooled_output{kind::embedding, 32, true, {8, 16, 32}});
  const auto roberta =
      load("xlm-roberta-embedding", make_naive_backend()).config;
  CHECK(roberta.pooling.output ==
        text::pooled_output{kind::embedding, 32, true, {}});
  CHECK_FALSE(roberta.pooling.normalised);
  const auto score = load("modernbert-score", make_naive_backend()).config;
  CHECK(score.pooling.output == text::pooled_output{kind::score, 1, false, {}});
  CHECK(score.attention_of(0).ahead == ops::all_ahead);
  CHECK(score.attention_of(1).ahead == 6);
  CHECK(score.attention_of(1).window == 7);
  CHECK(score.rope_of(0).theta == 160000.0f);
  CHECK(score.rope_of(1).theta == 10000.0f);
}

TEST_CASE("an encoder's size is known before it is loaded") {
  for (const std::string name : {"bert-score", "modernbert-embedding"}) {
    auto file = model::open_checkpoint(folder() / name);
    REQUIRE(file.has_value());
    auto config = model::read_model_config(**file);
    REQUIRE(config.has_value());
    auto backend = ops::cpu::make_sizing_backend();
    auto size = model::encoder_size(**file, *config, *backend, {160, 8});
    REQUIRE(size.has_value());
    auto real = load(name, cpu(ops::cpu::instruction_set::plain, 1));
    CHECK(size->weights == real.encoder->weight_bytes());
    // The widest slots alone.
    CHECK(size->workspace >= 160u * (32 + 3 * 32 + 32 + 48) * 4);
    CHECK_FALSE(model::encoder::make(**file, *config, *backend, {0, 1}, {})
                    .has_value());
    CHECK_FALSE(model::encoder::make(**file, *config, *backend, {1, 0}, {})
                    .has_value());
  }
}
