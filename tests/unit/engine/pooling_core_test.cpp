#include "engine/pooling_core.hpp"

#include <catch2/catch.hpp>

#include <limits>
#include <map>

using namespace troupe;
using namespace troupe::engine;

namespace {

/// A model without weights: a vector is the number of tokens, their sum and
/// where the second text begins. Keeps what its steps held.
class counting_runner final : public pooling_runner {
public:
  std::span<const float>
  run(std::span<const whole_sequence> sequences) override {
    vectors_.clear();
    auto& lengths = steps.emplace_back();
    for (const auto& one : sequences) {
      float sum = 0;
      for (token_id id : one.tokens)
        sum += static_cast<float>(id);
      if (one.tokens.front() == 99)
        sum = std::numeric_limits<float>::quiet_NaN();
      lengths.push_back(one.tokens.size());
      vectors_.insert(vectors_.end(),
                      {static_cast<float>(one.tokens.size()), sum,
                       static_cast<float>(one.second_text)});
    }
    return vectors_;
  }
  std::int32_t vocabulary() const override {
    return 100;
  }
  std::int32_t size() const override {
    return 3;
  }
  std::uint64_t weight_bytes_read() const override {
    return steps.size();
  }

  std::vector<std::vector<std::size_t>> steps; ///< lengths of the sequences

private:
  std::vector<float> vectors_;
};

struct heard_owners final : step_watch {
  void begin(std::span<const owner> of) override {
    began.emplace_back(of.begin(), of.end());
  }
  void end() override {
    ++ended;
  }
  std::vector<std::vector<owner>> began;
  int ended = 0;
};

request ask(std::uint64_t id, std::size_t tokens, std::uint32_t alone = 0) {
  request r;
  r.id = id;
  r.prompt.assign(tokens, 1);
  r.whose = {7, id};
  r.alone = alone;
  return r;
}

constexpr pooling_core::config bounds{.max_num_seqs = 3,
                                      .max_num_batched_tokens = 20,
                                      .max_model_len = 50,
                                      .max_waiting = 4};

/// Steps until nothing is left; all outputs by id.
std::map<std::uint64_t, output> finish_all(pooling_core& core) {
  std::map<std::uint64_t, output> out;
  do {
    for (auto& one : core.step(nullptr).outputs)
      out.emplace(one.id, std::move(one));
  } while (core.living() > 0);
  return out;
}

using lengths = std::vector<std::vector<std::size_t>>;

} // namespace

TEST_CASE("a step takes whole prompts in their order, as many as fit") {
  counting_runner runner;
  pooling_core core{bounds, runner};
  std::uint64_t id = 0;
  for (std::size_t tokens : {12, 8, 1, 3, 3, 3, 1})
    core.submit(ask(++id, tokens));
  CHECK(core.now().running == 2);
  CHECK(core.now().waiting == 5);
  CHECK(core.now().waiting_tokens == 31);
  auto heard = finish_all(core);
  CHECK(runner.steps == lengths{{12, 8}, {1, 3, 3}, {3, 1}});
  REQUIRE(heard.size() == 7);
  for (const auto& [which, one] : heard) {
    CHECK(one.finish == finish_reason::stop);
    CHECK(one.tokens.empty());
  }
  CHECK(heard.at(2).vector == std::vector<float>{8, 8, 0});
  const auto now = core.now();
  CHECK(now.steps == 3);
  CHECK(now.prompt_tokens == 31);
  CHECK(now.finished == 7);
  CHECK(now.running == 0);
  CHECK(now.waiting == 0);
  CHECK(now.waiting_tokens == 0);
  CHECK(now.weight_bytes_read == 3);
  CHECK(core.step(nullptr).outputs.empty());
  CHECK(core.now().steps == 3);
}

TEST_CASE("a prompt that is longer than a step has one to itself") {
  counting_runner runner;
  pooling_core core{bounds, runner};
  core.submit(ask(1, 5));
  core.submit(ask(2, 50));
  core.submit(ask(3, 5));
  auto heard = finish_all(core);
  CHECK(runner.steps == lengths{{5}, {50}, {5}});
  CHECK(heard.at(2).finish == finish_reason::stop);
}

TEST_CASE("those that are to be alone take turns with the others") {
  counting_runner runner;
  pooling_core core{bounds, runner};
  core.submit(ask(1, 1, 1));
  core.submit(ask(2, 2, 5));
  core.submit(ask(3, 20));
  core.submit(ask(4, 19));
  core.submit(ask(5, 3, 1));
  heard_owners watch;
  while (core.living() > 0)
    core.step(&watch);
  CHECK(runner.steps == lengths{{1}, {20}, {2}, {19}, {3}});
  CHECK(watch.ended == 5);
  CHECK(watch.began[1] == std::vector<owner>{{7, 3}});
}

TEST_CASE("the watch hears of all owners of a step") {
  counting_runner runner;
  pooling_core core{bounds, runner};
  core.submit(ask(1, 1));
  core.submit(ask(2, 1));
  heard_owners watch;
  core.step(&watch);
  CHECK(watch.began == std::vector<std::vector<owner>>{{{7, 1}, {7, 2}}});
  core.step(&watch);
  CHECK(watch.began.size() == 1);
}

TEST_CASE("bad prompts are refused, each by what is wrong with it") {
  counting_runner runner;
  pooling_core core{bounds, runner};
  auto foreign = ask(3, 2);
  foreign.prompt[1] = 100;
  auto negative = ask(4, 2);
  negative.prompt[0] = -1;
  auto behind = ask(5, 2);
  behind.second_text = 3;
  for (const auto& [bad, words] :
       std::initializer_list<std::pair<request, const char*>>{
           {ask(1, 0), "empty"},
           {ask(2, 51), "may have 50"},
           {foreign, "vocabulary of 100"},
           {negative, "token id -1"},
           {behind, "second text"}}) {
    core.submit(bad);
    auto heard = core.step(nullptr).outputs;
    REQUIRE(heard.size() == 1);
    CHECK(heard[0].id == bad.id);
    CHECK(heard[0].finish == finish_reason::error);
    CHECK(heard[0].code == errc::invalid_argument);
    CHECK_THAT(heard[0].message, Catch::Contains(words));
  }
  CHECK(core.now().steps == 0);
}

TEST_CASE("an id in use and a full queue are refused") {
  counting_runner runner;
  pooling_core core{bounds, runner};
  for (std::uint64_t id = 1; id <= 8; ++id)
    core.submit(ask(id, 1));
  core.submit(ask(3, 1));
  auto heard = core.step(nullptr).outputs;
  REQUIRE(heard.size() == 5);
  CHECK(heard[0].id == 8);
  CHECK(heard[0].code == errc::limit);
  CHECK(heard[1].id == 3);
  CHECK_THAT(heard[1].message, Catch::Contains("in use"));
  CHECK(core.most_living() == 7);
  CHECK(finish_all(core).size() == 4);
}

TEST_CASE("a cancelled prompt is never computed") {
  counting_runner runner;
  pooling_core core{bounds, runner};
  core.submit(ask(1, 20));
  core.submit(ask(2, 4));
  core.submit(ask(3, 5, 1));
  core.cancel(2);
  core.cancel(3);
  core.cancel(77);
  CHECK(core.living() == 1);
  auto heard = finish_all(core);
  CHECK(heard.at(2).finish == finish_reason::cancelled);
  CHECK(heard.at(3).finish == finish_reason::cancelled);
  CHECK(heard.at(1).finish == finish_reason::stop);
  CHECK(runner.steps == lengths{{20}});
  CHECK(core.now().waiting_tokens == 0);
  core.submit(ask(2, 1)); // the id is free again
  CHECK(finish_all(core).at(2).finish == finish_reason::stop);
}

TEST_CASE("numbers that are not finite fail their prompt alone") {
  counting_runner runner;
  pooling_core core{bounds, runner};
  core.submit(ask(1, 3));
  auto bad = ask(2, 3);
  bad.prompt[0] = 99;
  bad.second_text = 1;
  core.submit(bad);
  auto heard = finish_all(core);
  CHECK(heard.at(1).finish == finish_reason::stop);
  CHECK(heard.at(2).finish == finish_reason::error);
  CHECK_THAT(heard.at(2).message, Catch::Contains("not finite"));
  CHECK(heard.at(2).vector.empty());
}
