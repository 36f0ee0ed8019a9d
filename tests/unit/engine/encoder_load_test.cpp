#include "engine/engine.hpp"
#include "engine/text/tokenizer.hpp"

#include "tests/unit/model/vectors_file.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>

using namespace troupe;
using namespace troupe::engine;
using troupe::test::cosine;
using troupe::test::read_vectors;
using troupe::test::reference_vector;

namespace {

std::filesystem::path folder(const std::string& name) {
  return std::filesystem::path{TROUPE_SOURCE_DIR} / "tests/reference/encoders" /
         name;
}

options tiny(const std::string& name) {
  options o;
  o.model = folder(name);
  o.threads = 1;
  return o;
}

/// Runs an engine and waits for answers.
class session {
public:
  explicit session(const options& o)
      : engine_(troupe::engine::engine::load(o, {}).value()) {
    engine_->start([this](step_result&& r) {
      std::lock_guard lock{mutex_};
      for (auto& one : r.outputs)
        heard_.insert_or_assign(one.id, std::move(one));
      changed_.notify_all();
    });
  }

  /// The outputs for all of them, submitted together.
  std::vector<output> ask(const std::vector<reference_vector>& all) {
    {
      std::lock_guard lock{mutex_};
      heard_.clear();
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      request r;
      r.id = i + 1;
      r.prompt = all[i].ids;
      r.second_text = all[i].second_text;
      r.params.max_tokens = 0;
      engine_->submit(std::move(r));
    }
    std::unique_lock lock{mutex_};
    const bool done = changed_.wait_for(lock, std::chrono::seconds{120}, [&] {
      return heard_.size() == all.size();
    });
    if (!done)
      throw std::runtime_error{"no end"};
    std::vector<output> out;
    for (auto& [id, one] : heard_)
      out.push_back(one);
    return out;
  }

  troupe::engine::engine& what() {
    return *engine_;
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, output> heard_;
  std::unique_ptr<troupe::engine::engine> engine_; ///< ends first
};

std::string failure(const options& o) {
  auto loaded = troupe::engine::engine::load(o, {});
  return loaded ? "" : loaded.error().message;
}

/// How far answers may be from the reference: as stored, in bf16, products and
/// attention round their inputs.
struct allowed {
  const char* dtype;
  double cosine;
  float score;
};
constexpr allowed forms[] = {{"", 2e-3, 2e-2f}, {"float32", 1e-5, 5e-3f}};

} // namespace

TEST_CASE("every kind of encoder is loaded and answers with vectors") {
  for (const std::string name :
       {"bert-embedding", "bert-score", "xlm-roberta-embedding",
        "xlm-roberta-score", "modernbert-embedding", "modernbert-score",
        "qwen3-embedding"}) {
    for (const auto& how : forms) {
      INFO(name << ", dtype " << how.dtype);
      const auto reference = read_vectors("encoders/" + name + ".vectors");
      auto o = tiny(name);
      o.dtype = how.dtype;
      o.max_num_batched_tokens = 41; // the longest has 64
      session whole{o};
      const auto together = whole.ask(reference);
      for (std::size_t i = 0; i < reference.size(); ++i) {
        const auto& one = together[i];
        CHECK(one.finish == finish_reason::stop);
        CHECK(one.tokens.empty());
        REQUIRE(one.vector.size() == reference[i].vector.size());
        if (one.vector.size() > 1)
          CHECK(cosine(one.vector, reference[i].vector) > 1 - how.cosine);
        else
          CHECK(std::abs(one.vector[0] - reference[i].vector[0]) < how.score);
        CHECK((whole.ask({reference[i]})[0].vector == one.vector));
      }
      const auto& card = whole.what().card();
      REQUIRE(card.pooled.has_value());
      CHECK(card.pooled->size == reference[0].vector.size());
      CHECK((card.pooled->what == text::pooled_output::kind::score) ==
            name.ends_with("score"));
      const auto now = whole.what().now();
      CHECK(now.finished == 2 * reference.size());
      CHECK(now.kv_blocks_total == 0);
      CHECK(whole.what().about().weight_bytes > 0);
      CHECK(whole.what().about().arithmetic_class.size() == 16);
    }
  }
}

TEST_CASE("an encoder's longest text is bounded by the model and the options") {
  session s{tiny("bert-embedding")};
  CHECK(s.what().card().max_model_len == 72);
  CHECK(session{tiny("xlm-roberta-score")}.what().card().max_model_len == 80);
  reference_vector longest{"-", std::vector<token_id>(72, 5), 0, {}};
  CHECK(s.ask({longest})[0].finish == finish_reason::stop);
  longest.ids.push_back(5);
  CHECK(s.ask({longest})[0].finish == finish_reason::error);
  auto o = tiny("bert-embedding");
  o.max_model_len = 73;
  CHECK_THAT(failure(o), Catch::Contains("73 is more than the model's 72"));
  o.max_model_len = 10;
  CHECK(session{o}.what().card().max_model_len == 10);
}

TEST_CASE("an encoder may be quantised when it is loaded") {
  const auto reference = read_vectors("encoders/bert-embedding.vectors");
  auto o = tiny("bert-embedding");
  o.quantization = "q8_0";
  session s{o};
  const auto heard = s.ask(reference);
  for (std::size_t i = 0; i < reference.size(); ++i)
    CHECK(cosine(heard[i].vector, reference[i].vector) > 0.99);
  session plain{tiny("bert-embedding")};
  CHECK(s.what().about().arithmetic_class !=
        plain.what().about().arithmetic_class);
}

TEST_CASE("what an encoder takes of memory is measured as it is loaded") {
  auto o = tiny("modernbert-score");
  const auto use = measure(o, 1u << 30);
  REQUIRE(use.has_value());
  session s{o};
  CHECK(use->weight_bytes == s.what().about().weight_bytes);
  CHECK(use->kv_cache_bytes == 0);
  CHECK(use->kv_blocks == 0);
  CHECK(use->max_model_len == 80);
  CHECK(use->workspace_bytes > 512u * 32 * 4);
  o.max_num_batched_tokens = 4096;
  CHECK(measure(o, 1u << 30)->workspace_bytes > 4 * use->workspace_bytes);
  o.max_model_len = 1000;
  CHECK_THAT(measure(o, 1u << 30).error().message,
             Catch::Contains("max_model_len"));
}

TEST_CASE("all-MiniLM-L6-v2 gives the vectors of the reference") {
  options o;
  o.model =
      std::filesystem::path{TROUPE_SOURCE_DIR} / "models" / "all-MiniLM-L6-v2";
  if (!std::filesystem::exists(o.model)) {
    if (std::getenv("TROUPE_REQUIRE_MODEL"))
      FAIL("TROUPE_REQUIRE_MODEL is set, but there is no " << o.model.string());
    WARN("skipped: there is no " << o.model.string());
    return;
  }
  const auto reference = read_vectors("all-minilm-l6-v2.vectors");
  REQUIRE(reference.size() == 20);
  session s{o};
  const auto& card = s.what().card();
  CHECK(card.max_model_len == 256);
  CHECK(card.pooled ==
        text::pooled_output{
            text::pooled_output::kind::embedding, 384, false, {}});
  const auto heard = s.ask(reference);
  double worst = 1;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    REQUIRE(heard[i].vector.size() == 384);
    worst = std::min(worst, cosine(heard[i].vector, reference[i].vector));
  }
  INFO("worst cosine: 1 - " << 1 - worst);
  CHECK(worst > 1 - 1e-3);
}
