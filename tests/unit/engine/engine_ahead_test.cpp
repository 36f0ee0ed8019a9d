#include "ahead_runner.hpp"
#include "core_bench.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <limits>
#include <optional>
#include <set>

using namespace troupe;
using namespace troupe::engine;

// An engine whose runner runs ahead gives every choice what one gives whose
// runner does not.

namespace {

/// Notes who had rows in a step, and that steps end before others begin.
class noting_watch final : public step_watch {
public:
  void begin(std::span<const owner> of) override {
    REQUIRE_FALSE(is_in_step);
    is_in_step = true;
    owners = of.size();
  }
  void end() override {
    REQUIRE(is_in_step);
    is_in_step = false;
  }
  bool is_in_step = false;
  std::size_t owners = 0;
};

class ahead_bench {
public:
  ahead_bench(const engine_core::config& c, bool goes_ahead,
              bool has_roles = false)
      : hashes(vocabulary, c.kv_blocks, c.bounds.block_size, has_roles),
        runner(hashes, goes_ahead), core(std::in_place, c, runner) {
  }

  void step() {
    for (output& o : core->step(&watch).outputs)
      take(o);
    REQUIRE_FALSE(watch.is_in_step);
    for (const auto& [id, tokens] : cancels)
      if (auto found = said.find(id);
          found != said.end() && found->second.tokens.size() >= tokens &&
          found->second.finish == finish_reason::none &&
          cancelled.insert(id).second)
        core->cancel(id);
  }

  void run() {
    for (int i = 0; i < 20'000 && (i == 0 || core->living() > 0); ++i)
      step();
    REQUIRE(core->living() == 0);
    step(); // what a cancel said
    CHECK(core->now().kv_blocks_free == core->now().kv_blocks_total);
  }

  /// With up to `most` steps between two.
  replies answers(const std::vector<request>& all, std::mt19937 random,
                  std::uint32_t most) {
    for (const auto& one : all) {
      core->submit(one);
      for (auto steps = random() % (most + 1); steps > 0; --steps)
        step();
    }
    run();
    return said;
  }

  hash_runner hashes;
  ahead_runner runner;
  std::optional<engine_core> core;
  noting_watch watch;
  replies said;
  /// Choices that are cancelled when they have so many tokens.
  std::map<std::uint64_t, std::size_t> cancels;

private:
  void take(output& o) {
    told& t = said[o.id];
    REQUIRE(t.finish == finish_reason::none);
    if (t.tokens.empty() && t.prompt_logprobs.empty()) {
      t.cached_tokens = o.cached_tokens;
      t.prompt_logprobs = o.prompt_logprobs;
    }
    t.tokens.insert(t.tokens.end(), o.tokens.begin(), o.tokens.end());
    for (auto& one : o.logprobs)
      t.logprobs.push_back(one);
    t.finish = o.finish;
    t.stop_token = o.stop_token;
    t.code = o.code;
    t.message = o.message;
  }

  std::set<std::uint64_t> cancelled;
};

void check_same(const replies& a, const replies& b) {
  REQUIRE(a.size() == b.size());
  for (const auto& [id, one] : a) {
    INFO("choice " << id);
    const auto& other = b.at(id);
    CHECK(one.tokens == other.tokens);
    CHECK(one.same_as(other));
    CHECK(one.message == other.message);
  }
}

request plain(std::uint64_t id, std::uint32_t prompt, std::uint32_t tokens) {
  request r =
      ask(id, prompt_of(prompt, static_cast<std::uint32_t>(id)), tokens);
  r.params.ignore_eos = true;
  return r;
}

/// Many of them may run ahead, some of which count tokens; some are alone, some
/// stop.
std::vector<request> mixture(std::mt19937& random) {
  std::vector<request> out;
  for (std::uint64_t id = 0; id < 30; ++id) {
    request r = random_request(id, random);
    if (random() % 8 == 0)
      r.params.logit_bias = {{5, 2.5f}, {6, -3}};
    if (random() % 16 == 0)
      r.params.logit_bias = {{5, 2}, {5, 2}}; // the host's
    if (random() % 12 == 0)
      r.alone = 1 + random() % 4;
    out.push_back(std::move(r));
  }
  return out;
}

} // namespace

TEST_CASE("steps of choices that go on are submitted ahead") {
  ahead_bench b{roomy(), true};
  for (std::uint64_t id = 1; id <= 3; ++id)
    b.core->submit(plain(id, 5, 20));
  b.run();
  const auto now = b.core->now();
  CHECK(now.steps == 20);
  CHECK(now.steps_ahead == 19);
  CHECK(now.output_tokens == 60);
  CHECK(b.runner.under_way() == 0);
  ahead_bench other{roomy(), false};
  for (std::uint64_t id = 1; id <= 3; ++id)
    other.core->submit(plain(id, 5, 20));
  other.run();
  CHECK(other.core->now().steps_ahead == 0);
  check_same(b.said, other.said);
}

TEST_CASE("an end that the host could not know of costs one row, and others "
          "go on") {
  request stopping = plain(1, 5, 50);
  ahead_bench whole{roomy(), false};
  whole.core->submit(stopping);
  whole.run();
  stopping.params.stop_token_ids = {whole.said[1].tokens[7]};
  for (bool ahead : {false, true}) {
    INFO("ahead " << ahead);
    ahead_bench b{roomy(), ahead};
    b.core->submit(stopping);
    b.core->submit(plain(2, 9, 30));
    b.run();
    CHECK(b.said[1].finish == finish_reason::stop);
    CHECK(b.said[1].tokens.size() <= 8);
    CHECK(b.said[2].tokens.size() == 30);
    CHECK(b.core->now().output_tokens == 30 + b.said[1].tokens.size());
    CHECK(b.hashes.passes == 30);
  }
}

TEST_CASE("who has left has rows in the step that was submitted ahead, and is "
          "named with the others") {
  ahead_bench b{roomy(), true};
  for (std::uint64_t id = 1; id <= 2; ++id)
    b.core->submit(plain(id, 5, 20));
  for (int i = 0; i < 3; ++i)
    b.step();
  REQUIRE(b.runner.under_way() == 1);
  CHECK(b.watch.owners == 2);
  b.core->cancel(1);
  b.step();
  CHECK(b.watch.owners == 2);
  b.step();
  CHECK(b.watch.owners == 1);
  b.run();
}

TEST_CASE("a step ahead of nobody is dropped when the next is planned") {
  request stopping = plain(1, 5, 50);
  ahead_bench whole{roomy(), false};
  whole.core->submit(stopping);
  whole.run();
  stopping.params.stop_token_ids = {whole.said[1].tokens[7]};
  ahead_bench b{roomy(), true};
  b.core->submit(stopping);
  while (b.core->living() > 0)
    b.step();
  CHECK(b.runner.under_way() == 1);
  b.core->submit(plain(2, 9, 3));
  b.run();
  CHECK(b.said[2].tokens.size() == 3);
  CHECK(b.runner.under_way() == 0);
  // Also when its core goes.
  b.core->submit(plain(3, 5, 50));
  b.step();
  CHECK(b.runner.under_way() == 1);
  b.core.reset();
  CHECK(b.runner.under_way() == 0);
}

TEST_CASE("whoever waits for a seat or has tokens to read is not passed by a "
          "step ahead") {
  ahead_bench b{roomy(), true};
  b.core->submit(plain(1, 5, 50));
  b.step();
  CHECK(b.runner.under_way() == 1);
  b.core->submit(plain(2, 150, 5));
  b.step(); // the one ahead
  CHECK(b.runner.under_way() == 0);
  b.step(); // in chunks of 63
  CHECK(b.runner.under_way() == 0);
  b.step();
  b.step();
  CHECK(b.said[2].tokens.size() == 1);
  CHECK(b.runner.under_way() == 1);
}

TEST_CASE("no step is ahead of a draw that the host makes, but of one that "
          "counts tokens") {
  for (int which = 0; which < 7; ++which) {
    INFO(which);
    request r = plain(1, 5, 20);
    auto& p = r.params;
    if (which == 0)
      p.repetition_penalty = 1.5f;
    if (which == 1)
      p.frequency_penalty = 0.5f;
    if (which == 2)
      p.presence_penalty = 0.5f;
    if (which == 3)
      p.logit_bias = {{5, 2}, {5, 2}};
    if (which == 4)
      p.logprobs = 33;
    if (which == 5)
      r.alone = 20;
    if (which == 6)
      p.min_tokens = 10;
    ahead_bench b{roomy(), true};
    b.core->submit(r);
    b.core->submit(plain(2, 5, 20));
    b.run();
    CHECK((b.core->now().steps_ahead > 0) == (which < 3 || which == 6));
  }
}

TEST_CASE("no step is ahead of one whose logits the host looks at") {
  ahead_bench b{roomy(), true};
  request r = plain(1, 5, 20);
  r.params.prompt_logprobs = 33;
  b.core->submit(r);
  b.step();
  CHECK(b.runner.under_way() == 0);
  CHECK(b.said[1].prompt_logprobs.size() == 5);
  b.step();
  CHECK(b.runner.under_way() == 1);
}

TEST_CASE("with a runner that runs ahead every choice gives the same, whatever "
          "happens around") {
  std::uint64_t ahead_in_all = 0, preemptions = 0, hits = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random{seed};
    const auto requests = mixture(random);
    const auto config = tiny(random, 6);
    const bool has_roles = seed % 2 == 1;
    ahead_bench ahead{config, true, has_roles}, other{config, false, has_roles};
    for (const auto& one : requests)
      if (random() % 5 == 0)
        ahead.cancels[one.id] = other.cancels[one.id] = 1 + random() % 4;
    const auto with = ahead.answers(requests, random, 3);
    check_same(with, other.answers(requests, random, 3));
    ahead_in_all += ahead.core->now().steps_ahead;
    preemptions += ahead.core->now().preemptions;
    hits += ahead.core->now().prefix_hits;
  }
  CHECK(ahead_in_all > 100);
  CHECK(preemptions > 100);
  CHECK(hits > 100);
}

TEST_CASE("with room for all, what the cache had is the same too") {
  for (unsigned seed = 0; seed < 10; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random{seed};
    const auto requests = mixture(random);
    replies said[2];
    for (bool goes_ahead : {false, true}) {
      ahead_bench b{roomy(), goes_ahead};
      for (const auto& one : requests) { // one after the other
        b.core->submit(one);
        b.run();
      }
      said[goes_ahead] = b.said;
    }
    check_same(said[0], said[1]);
    for (const auto& [id, one] : said[0])
      CHECK(one.cached_tokens == said[1][id].cached_tokens);
  }
}

TEST_CASE("what is no number is said while another step is under way") {
  for (bool ahead : {false, true}) {
    ahead_bench b{roomy(), ahead};
    b.hashes.distort = [](std::span<float> row, std::int32_t token) {
      if (token == 7)
        row[3] = std::numeric_limits<float>::quiet_NaN();
    };
    request r = plain(1, 5, 150);
    r.params.logit_bias = {{7, 0.5f}};
    b.core->submit(r);
    b.core->submit(plain(2, 5, 10));
    b.run();
    CHECK(b.said[1].finish == finish_reason::error);
    CHECK(b.said[1].code == errc::internal);
    CHECK(b.said[1].message == sampling::unusable_logits().message);
    CHECK(b.said[1].tokens.back() == 7);
    CHECK(b.said[1].tokens.size() > 1);
  }
}
