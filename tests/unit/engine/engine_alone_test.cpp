#include "core_bench.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <set>

using namespace troupe;
using namespace troupe::engine;

namespace {

/// Keeps the owners of every pass.
class recording_watch final : public step_watch {
public:
  void begin(std::span<const owner> of) override {
    if (is_open)
      throw std::logic_error{"a step within a step"};
    is_open = true;
    steps.emplace_back();
    for (const owner& o : of)
      steps.back().insert(o.record);
  }

  void end() override {
    if (!is_open)
      throw std::logic_error{"the end of no step"};
    is_open = false;
  }

  std::vector<std::set<std::uint64_t>> steps; ///< the records in each
  bool is_open = false;
};

using members = std::set<std::uint64_t>;

request owned(request r, bool is_alone = false) {
  r.whose = {7, r.id};
  r.alone = is_alone;
  return r;
}

/// Steps until nothing lives, and what was in each step.
std::vector<members> run(bench& b) {
  recording_watch watch;
  const std::uint64_t before = b.core.now().steps;
  for (int most = 10000; b.core.living() > 0 && most > 0; --most)
    b.step(&watch);
  REQUIRE(b.core.living() == 0);
  CHECK_FALSE(watch.is_open);
  CHECK(watch.steps.size() == b.core.now().steps - before);
  return watch.steps;
}

} // namespace

TEST_CASE("a watch hears of exactly the choices with rows in a step") {
  bench b{roomy()};
  b.core.submit(owned(greedy(1, {5, 6}, 3)));
  b.core.submit(owned(greedy(2, {5, 7}, 1)));
  CHECK(run(b) == std::vector<members>{{1, 2}, {1}, {1}});
}

TEST_CASE("a choice that waits is not in the step") {
  engine_core::config c = roomy();
  c.bounds.max_num_seqs = 1;
  bench b{c};
  b.core.submit(owned(greedy(1, {5, 6}, 2)));
  b.core.submit(owned(greedy(2, {5, 7}, 1)));
  CHECK(run(b) == std::vector<members>{{1}, {1}, {2}});
}

TEST_CASE("an idle core tells its watch nothing") {
  bench b{roomy()};
  recording_watch watch;
  b.step(&watch);
  CHECK(watch.steps.empty());
}

TEST_CASE("a choice is alone until its next token, then among the others") {
  bench b{roomy()};
  b.core.submit(owned(greedy(1, {5, 6}, 4)));
  b.core.submit(owned(greedy(2, {5, 7}, 3), true));
  CHECK(run(b) == std::vector<members>{{2}, {1, 2}, {1, 2}, {1}, {1}});
}

TEST_CASE("a choice is alone for as many tokens as it is told to be") {
  bench b{roomy()};
  request suspect = owned(greedy(2, {5, 7}, 6));
  suspect.alone = 3;
  b.core.submit(owned(greedy(1, {5, 6}, 4)));
  b.core.submit(std::move(suspect));
  CHECK(run(b) ==
        std::vector<members>{{2}, {1}, {2}, {1}, {2}, {1, 2}, {1, 2}, {2}});
}

TEST_CASE(
    "one that is alone for long needs no more blocks than it has tokens") {
  engine_core::config c = roomy();
  c.kv_blocks = 2;
  bench b{c};
  const auto size = c.bounds.block_size;
  request suspect = owned(greedy(2, prompt_of(size), size));
  suspect.alone = 1000;
  b.core.submit(suspect);
  run(b);
  CHECK(b.said[2].same_as(alone(greedy(2, prompt_of(size), size), c)));
  CHECK(b.core.now().kv_blocks_free == 2);
}

TEST_CASE("the steps of one that is alone take turns with the others") {
  engine_core::config c = roomy();
  c.bounds.max_num_batched_tokens = 4;
  bench b{c};
  request suspect = owned(greedy(9, prompt_of(6), 2), true);
  suspect.resume = alone(greedy(9, prompt_of(6), 5)).tokens; // 11 rows to do
  suspect.params.max_tokens = 7;
  b.core.submit(owned(greedy(1, {5, 6}, 20)));
  b.core.submit(std::move(suspect));
  const std::vector<members> steps = run(b);
  const std::vector<members> begin{{9}, {1}, {9}, {1}, {9}, {1, 9}};
  REQUIRE(steps.size() > begin.size());
  CHECK(std::equal(begin.begin(), begin.end(), steps.begin()));
}

TEST_CASE("several that are to be alone come one after the other") {
  engine_core::config c = roomy();
  c.bounds.max_num_batched_tokens = 4;
  bench b{c};
  for (std::uint64_t id : {11, 12, 13})
    b.core.submit(owned(greedy(id, prompt_of(8, id), 1), true));
  b.core.submit(owned(greedy(1, {5, 6}, 4)));
  CHECK(run(b) == std::vector<members>{
                      {11}, {1}, {11}, {1}, {12}, {1}, {12}, {1}, {13}, {13}});
}

TEST_CASE("one that is alone does not wait for others to end") {
  bench b{roomy()};
  for (std::uint64_t id = 1; id <= 40; ++id)
    b.core.submit(owned(greedy(id, prompt_of(5, id), 50)));
  b.step();
  b.core.submit(owned(greedy(99, {5, 6}, 1), true));
  b.step();
  b.step();
  CHECK(b.said[99].finish == finish_reason::length);
}

TEST_CASE("one that is alone takes a seat and waits for it") {
  engine_core::config c = roomy();
  c.bounds.max_num_seqs = 2;
  bench b{c};
  b.core.submit(owned(greedy(1, {5, 6}, 2)));
  b.core.submit(owned(greedy(2, {5, 7}, 3)));
  b.core.submit(owned(greedy(3, {5, 8}, 9)));
  CHECK(b.step().now.running == 2);
  b.core.submit(owned(greedy(9, {5, 9}, 2), true));
  const std::vector<members> steps = run(b);
  // The seat of 1 goes to 9, though 3 came first.
  const std::vector<members> begin{{1, 2}, {9}, {2, 9}, {3}};
  REQUIRE(steps.size() > begin.size());
  CHECK(std::equal(begin.begin(), begin.end(), steps.begin()));
}

TEST_CASE("gauges count those that are alone") {
  engine_core::config c = roomy();
  c.bounds.max_num_batched_tokens = 4;
  bench b{c};
  b.core.submit(owned(greedy(1, prompt_of(10), 2), true));
  b.core.submit(owned(greedy(2, prompt_of(10), 2), true));
  CHECK(b.core.living() == 2);
  CHECK(b.core.now().waiting == 2);
  CHECK(b.core.now().waiting_tokens == 20);
  const stats now = b.step().now;
  CHECK(now.running == 1);
  CHECK(now.waiting == 1);
  CHECK(now.waiting_tokens == 16);
  run(b);
  CHECK(b.core.now().running + b.core.now().waiting == 0);
  CHECK(b.core.now().kv_blocks_free == 400);
}

TEST_CASE("one that is alone is bounded and refused like others") {
  engine_core::config c = roomy();
  c.bounds.max_num_seqs = 1;
  c.max_waiting = 1;
  bench b{c};
  for (std::uint64_t id = 1; id <= 3; ++id)
    b.core.submit(owned(greedy(id, {5}, 2), true));
  b.run();
  CHECK(b.said[1].finish == finish_reason::length);
  CHECK(b.said[2].finish == finish_reason::length);
  CHECK(b.said[3].code == errc::limit);
  CHECK(b.said[3].finish == finish_reason::error);
}

TEST_CASE("one that is alone can be cancelled at any step") {
  for (int steps = 0; steps < 12; ++steps) {
    engine_core::config c = roomy();
    c.bounds.max_num_batched_tokens = 4;
    bench b{c};
    b.core.submit(owned(greedy(1, prompt_of(20), 20), true));
    b.core.submit(owned(greedy(2, prompt_of(20), 20), true));
    b.core.submit(owned(greedy(3, prompt_of(20), 3)));
    for (int i = 0; i < steps; ++i)
      b.step();
    b.core.cancel(1);
    b.core.cancel(2);
    REQUIRE(b.run());
    CHECK(b.said[1].finish == finish_reason::cancelled);
    CHECK(b.said[2].finish == finish_reason::cancelled);
    CHECK(b.said[3].same_as(alone(greedy(3, prompt_of(20), 3))));
    CHECK(b.core.now().kv_blocks_free == 400);
    CHECK(b.core.now().waiting_tokens == 0);
  }
}

TEST_CASE("what is alone and ends at once leaves at once") {
  bench b{roomy()};
  b.core.submit(owned(greedy(1, {5, 6}, 0), true));
  CHECK(b.core.living() == 0);
  request scored = owned(greedy(2, prompt_of(30), 0), true);
  scored.params.prompt_logprobs = 1;
  b.core.submit(scored);
  run(b);
  CHECK(b.said[2].prompt_logprobs.size() == 30);
  CHECK(b.said[2].finish == finish_reason::length);
}

TEST_CASE("a poison that kills is in the journal by itself") {
  // What the watch was told last is what a death would be blamed on.
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::mt19937 random{seed};
    bench b{roomy()};
    constexpr token_id poison = 39;
    members blamed;
    recording_watch watch;
    b.runner.distort = [&](std::span<float>, std::int32_t token) {
      if (token == poison && blamed.empty())
        blamed = watch.steps.back();
    };
    for (std::uint64_t id = 1; id <= 8; ++id) {
      request r = greedy(id, {5, static_cast<token_id>(id)}, 20);
      r.params.logit_bias = {{poison, -100.f}};
      b.core.submit(owned(r));
    }
    for (auto before = random() % 10; before > 0; --before)
      b.step(&watch);
    b.core.submit(owned(greedy(99, {5, poison}, 3), true));
    while (b.core.living() > 0)
      b.step(&watch);
    CHECK(blamed == members{99});
  }
}

TEST_CASE("random work with suspects ends, gives the same and leaks nothing") {
  std::uint64_t preemptions = 0;
  for (unsigned seed = 0; seed < 400; ++seed) {
    std::mt19937 random{seed};
    const auto c = tiny(random, 6);
    bench b{c};
    recording_watch watch;
    std::vector<request> requests;
    for (std::uint64_t id = 0; id < 3 + random() % 6; ++id) {
      requests.push_back(owned(random_request(id, random), random() % 2));
      b.core.submit(requests.back());
      if (random() % 2)
        b.step(&watch);
      if (random() % 8 == 0)
        b.core.cancel(random() % (id + 1));
    }
    INFO("seed " << seed);
    for (int most = 3000; b.core.living() > 0 && most > 0; --most) {
      const std::uint64_t passes = b.runner.passes;
      b.step(&watch);
      REQUIRE(b.runner.passes == passes + 1);
      REQUIRE_FALSE(b.runner.last_plan.tokens.empty());
      REQUIRE_FALSE(watch.steps.back().empty());
    }
    b.step(&watch); // what was cancelled last
    const stats now = b.core.now();
    preemptions += now.preemptions;
    REQUIRE(now.kv_blocks_free == c.kv_blocks);
    REQUIRE(now.running + now.waiting + now.waiting_tokens == 0);
    REQUIRE(now.finished == requests.size());
    for (request r : requests) {
      r.alone = false;
      const told& got = b.said[r.id];
      if (got.finish != finish_reason::cancelled)
        REQUIRE(got.same_as(alone(r)));
    }
  }
  CHECK(preemptions > 100);
}
