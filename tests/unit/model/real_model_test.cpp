#include "engine/model/decoder.hpp"
#include "engine/model/model_card.hpp"
#include "engine/ops/cpu/cpu_backend.hpp"

#include "tests/unit/model/feeding.hpp"
#include "tests/unit/model/naive_backend.hpp"
#include "tests/unit/model/reference_file.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>

using namespace troupe;
using namespace troupe::test;

namespace {

/// How far logits may be from the reference on average and at worst, and by how
/// much the reference may prefer its choice where ours differs.
/// tests/reference/README.md says where the figures come from.
constexpr double mean_allowed = 0.18;
constexpr float worst_allowed = 3.0f;
constexpr float lost_margin_allowed = 0.6f;

std::filesystem::path real_model() {
  return std::filesystem::path{TROUPE_SOURCE_DIR} / "models" /
         "SmolLM2-135M-Instruct.Q4_1.gguf";
}

/// False, with a word why, if the weights are not there and need not be.
bool real_model_is_there() {
  if (std::filesystem::exists(real_model()))
    return true;
  if (std::getenv("TROUPE_REQUIRE_MODEL"))
    FAIL("TROUPE_REQUIRE_MODEL is set, but there is no "
         << real_model().string());
  WARN("skipped: there is no " << real_model().string());
  return false;
}

/// What a comparison with the reference saw.
struct comparison {
  double sum = 0;
  std::size_t values = 0;
  float worst = 0;
  std::size_t positions = 0;
  std::size_t same_choice = 0;
  /// The largest margin between the reference's first and second choice at
  /// which we chose differently.
  float widest_lost_margin = 0;
};

void compare(const reference_sequence& expected, std::size_t top_k,
             std::size_t position, std::span<const float> logits,
             comparison& out) {
  auto* best = &expected.best[position * top_k];
  auto* values = &expected.logits[position * top_k];
  for (std::size_t i = 0; i < top_k; ++i) {
    auto difference = std::abs(logits[best[i]] - values[i]);
    out.sum += difference;
    out.worst = std::max(out.worst, difference);
    ++out.values;
  }
  auto choice = std::max_element(logits.begin(), logits.end()) - logits.begin();
  ++out.positions;
  if (choice == best[0])
    ++out.same_choice;
  else
    out.widest_lost_margin =
        std::max(out.widest_lost_margin, values[0] - values[1]);
}

/// Runs whole sequences, one per step, along the reference's own choices.
comparison run_along(model::decoder& decoder, const reference_file& reference) {
  comparison out;
  for (const auto& sequence : reference.sequences) {
    engine::step_plan plan;
    plan.tables.emplace_back();
    for (std::size_t i = 0; i < sequence.ids.size(); ++i) {
      plan.tokens.push_back(sequence.ids[i]);
      plan.positions.push_back(static_cast<std::int32_t>(i));
      plan.sequences.push_back(0);
      plan.logit_rows.push_back(static_cast<std::int32_t>(i));
      if (i % 16 == 0)
        plan.tables[0].push_back(static_cast<std::int32_t>(i / 16));
    }
    decoder.submit(plan);
    auto logits = decoder.collect();
    std::size_t width = decoder.vocabulary();
    for (std::size_t i = 0; i < sequence.ids.size(); ++i)
      compare(sequence, reference.top_k, i, logits.subspan(i * width, width),
              out);
  }
  return out;
}

} // namespace

TEST_CASE("the real model's logits are near those in full precision") {
  if (!real_model_is_there())
    return;
  auto backend = ops::cpu::make_backend({});
  REQUIRE(backend.has_value());
  auto reference = read_reference("smollm2-135m-instruct.ref");
  REQUIRE(reference.sequences.size() == 50);
  auto model =
      load_model(real_model(), std::move(*backend), {256, 256, 16, 16});
  auto seen = run_along(*model.decoder, reference);
  auto mean = seen.sum / static_cast<double>(seen.values);
  INFO("mean " << mean << ", worst " << seen.worst << ", same choice "
               << seen.same_choice << " of " << seen.positions
               << ", widest lost margin " << seen.widest_lost_margin);
  CHECK(seen.positions == 7771);
  CHECK(mean < mean_allowed);
  CHECK(seen.worst < worst_allowed);
  CHECK(seen.widest_lost_margin < lost_margin_allowed);
}

// Takes a minute and a gigabyte, so it runs only when it is asked for.
TEST_CASE("in double precision the real model is the reference", "[.slow]") {
  if (!real_model_is_there())
    return;
  auto reference = read_reference("smollm2-135m-instruct.ref");
  reference.sequences.erase(reference.sequences.begin() + 2,
                            reference.sequences.end());
  for (auto& sequence : reference.sequences)
    sequence.ids.resize(40);
  auto model = load_model(real_model(), make_naive_backend(), {40, 40, 16, 3});
  auto seen = run_along(*model.decoder, reference);
  INFO("worst " << seen.worst);
  CHECK(seen.worst < 3e-4f);
  CHECK(seen.same_choice == seen.positions);
}

TEST_CASE("the real model's card says what its publisher says") {
  if (!real_model_is_there())
    return;
  auto file = weights::gguf_file::open(real_model());
  REQUIRE(file.has_value());
  auto config = model::read_model_config(**file);
  REQUIRE(config.has_value());
  auto card = model::read_model_card(**file, *config);
  REQUIRE(card.has_value());
  CHECK(card->max_model_len == 8192);
  CHECK(card->vocabulary_size == 49152);
  CHECK(card->eos_ids == std::vector<text::token_id>{2});
  CHECK(card->tokenizer.bos == 1);
  CHECK(!card->tokenizer.add_bos);
  CHECK(card->tokenizer.merges.size() == 48900);
  CHECK(std::count(card->tokenizer.kinds.begin(), card->tokenizer.kinds.end(),
                   text::token_kind::special) == 17);
}
