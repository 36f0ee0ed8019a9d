#include "core_bench.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

using namespace troupe;
using namespace troupe::engine;

// -- ends ---------------------------------------------------------------------

TEST_CASE("a choice ends at max_tokens") {
  const told t = alone(greedy(1, {5, 6}, 7));
  CHECK(t.tokens.size() == 7);
  CHECK(t.finish == finish_reason::length);
  CHECK(t.stop_token == -1);
}

TEST_CASE("a choice ends at max_model_len") {
  const told t = alone(greedy(1, prompt_of(195), 100));
  CHECK(t.tokens.size() == 5);
  CHECK(t.finish == finish_reason::length);
}

TEST_CASE("end of text ends a choice and is its last token") {
  request r = greedy(1, {5, 6}, 150);
  const std::vector<token_id> undisturbed = alone(r).tokens;
  r.params.ignore_eos = false;
  const auto end = std::find(undisturbed.begin(), undisturbed.end(), eos);
  REQUIRE(end != undisturbed.end());
  const told t = alone(r);
  CHECK(t.tokens == std::vector<token_id>(undisturbed.begin(), end + 1));
  CHECK(t.finish == finish_reason::stop);
  CHECK(t.stop_token == eos);
}

TEST_CASE("a stop token ends a choice even if end of text is ignored") {
  request r = greedy(1, {5, 6}, 20);
  const std::vector<token_id> undisturbed = alone(r).tokens;
  r.params.stop_token_ids = {undisturbed[4]};
  const told t = alone(r);
  const auto first =
      std::find(undisturbed.begin(), undisturbed.end(), undisturbed[4]);
  CHECK(t.tokens == std::vector<token_id>(undisturbed.begin(), first + 1));
  CHECK(t.finish == finish_reason::stop);
  CHECK(t.stop_token == undisturbed[4]);
}

TEST_CASE("neither end of text nor stop tokens come before min_tokens") {
  request r = greedy(1, {5, 6}, 100);
  r.params.ignore_eos = false;
  for (token_id id = 0; id < vocabulary - 2; ++id)
    r.params.stop_token_ids.push_back(id);
  CHECK(alone(r).tokens.size() < 10);
  r.params.min_tokens = 30;
  const told t = alone(r);
  CHECK(t.tokens.size() >= 31);
  CHECK(t.finish == finish_reason::stop);
  for (std::size_t i = 0; i < 30; ++i)
    CHECK(t.tokens[i] >= vocabulary - 2);
}

TEST_CASE("max_tokens 0 ends without a token and without a step") {
  bench b{roomy()};
  CHECK(b.reply_to(greedy(1, {5, 6}, 0)).finish == finish_reason::length);
  CHECK(b.said[1].tokens.empty());
  CHECK(b.core.now().steps == 0);
}

TEST_CASE("max_tokens 0 with prompt_logprobs scores the prompt only") {
  request r = greedy(1, prompt_of(200), 0);
  r.params.prompt_logprobs = 0;
  const told t = alone(r);
  CHECK(t.finish == finish_reason::length);
  CHECK(t.tokens.empty());
  CHECK(t.prompt_logprobs.size() == 200);
}

// -- log-probabilities --------------------------------------------------------

TEST_CASE("logprobs name the chosen token and the best") {
  request r = greedy(1, {5, 6}, 5);
  CHECK(alone(r).logprobs.empty());
  r.params.logprobs = 0;
  CHECK(alone(r).logprobs.at(0).size() == 1);
  r.params.logprobs = 3;
  r.params.temperature = 2; // changes the draw, not the numbers
  const told t = alone(r);
  REQUIRE(t.logprobs.size() == 5);
  for (std::size_t i = 0; i < 5; ++i) {
    REQUIRE(t.logprobs[i].size() == 4);
    CHECK(t.logprobs[i][0].id == t.tokens[i]);
    CHECK(t.logprobs[i][1].logprob >= t.logprobs[i][2].logprob);
    CHECK(t.logprobs[i][2].logprob >= t.logprobs[i][3].logprob);
  }
}

TEST_CASE("prompt_logprobs are what the tokens had if they were drawn") {
  request r = greedy(1, prompt_of(6), 20);
  r.params.logprobs = 2;
  const told drawn = alone(r);
  request echo = greedy(2, r.prompt, 1);
  echo.prompt.insert(echo.prompt.end(), drawn.tokens.begin(),
                     drawn.tokens.end());
  echo.params.prompt_logprobs = 2;
  const told scored = alone(echo);
  REQUIRE(scored.prompt_logprobs.size() == 26);
  CHECK(scored.prompt_logprobs[0].empty());
  for (std::size_t i = 0; i < 20; ++i)
    CHECK(scored.prompt_logprobs[6 + i] == drawn.logprobs[i]);
}

TEST_CASE("prompt_logprobs come with the first output only") {
  request r = greedy(1, prompt_of(9), 3);
  r.params.prompt_logprobs = 1;
  bench b{roomy()};
  b.core.submit(r);
  std::vector<std::size_t> sizes;
  while (b.core.living() > 0)
    for (const output& o : b.core.step().outputs)
      sizes.push_back(o.prompt_logprobs.size());
  CHECK(sizes == std::vector<std::size_t>{9, 0, 0});
}

// -- refusals -----------------------------------------------------------------

TEST_CASE("what is wrong with a request is said") {
  auto refused = [](request r, const std::string& word) {
    bench b{roomy()};
    const told t = b.reply_to(std::move(r));
    INFO(word << ": " << t.message);
    return t.finish == finish_reason::error && t.tokens.empty() &&
           t.message.find(word) != std::string::npos &&
           b.core.now().kv_blocks_free == 400;
  };
  auto with = [](auto change) {
    request r = greedy(1, {5, 6}, 4);
    change(r);
    return r;
  };
  const float nan = std::nanf("");
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK(refused(with([](request& r) { r.prompt = {}; }), "empty"));
  CHECK(refused(with([](request& r) { r.prompt = {1, 40}; }), "40"));
  CHECK(refused(with([](request& r) { r.prompt = {-1}; }), "prompt"));
  CHECK(refused(with([](request& r) { r.resume = {99}; }), "output"));
  CHECK(refused(with([](request& r) { r.prompt = prompt_of(200); }), "200"));
  CHECK(refused(with([](request& r) {
                  r.prompt = prompt_of(199);
                  r.resume = {1, 2};
                }),
                "201"));
  CHECK(refused(with([](request& r) { r.params.stop_token_ids = {40}; }),
                "stop_token_ids"));
  CHECK(refused(with([](request& r) {
                  r.params.logit_bias = {{-2, 1.f}};
                }),
                "logit_bias"));
  for (float bad : {nan, infinity, -infinity}) {
    CHECK(refused(with([=](request& r) {
                    r.params.logit_bias = {{2, bad}};
                  }),
                  "logit_bias"));
    CHECK(refused(with([=](request& r) { r.params.temperature = bad; }),
                  "temperature"));
    CHECK(refused(with([=](request& r) { r.params.top_p = bad; }), "top_p"));
    CHECK(refused(with([=](request& r) { r.params.min_p = bad; }), "min_p"));
    CHECK(refused(with([=](request& r) { r.params.frequency_penalty = bad; }),
                  "frequency_penalty"));
    CHECK(refused(with([=](request& r) { r.params.presence_penalty = bad; }),
                  "presence_penalty"));
    CHECK(refused(with([=](request& r) { r.params.repetition_penalty = bad; }),
                  "repetition_penalty"));
  }
  CHECK(refused(with([](request& r) { r.params.temperature = -1; }),
                "temperature"));
  CHECK(refused(with([](request& r) { r.params.top_p = 0; }), "top_p"));
  CHECK(refused(with([](request& r) { r.params.top_k = -1; }), "top_k"));
  CHECK(refused(with([](request& r) { r.params.min_p = 1.5f; }), "min_p"));
  CHECK(refused(with([](request& r) { r.params.repetition_penalty = 0; }),
                "repetition_penalty"));
  CHECK(refused(with([](request& r) { r.params.logprobs = -2; }), "logprobs"));
  CHECK(refused(with([](request& r) { r.params.prompt_logprobs = -2; }),
                "prompt_logprobs"));
}

TEST_CASE("the longest prompt that leaves room for a token is taken") {
  CHECK(alone(greedy(1, prompt_of(199), 5)).tokens.size() == 1);
}

TEST_CASE("a request that could never fit the KV blocks is refused") {
  engine_core::config c = roomy();
  c.kv_blocks = 4; // 16 positions; the last token needs none
  CHECK(alone(greedy(1, prompt_of(10), 7), c).finish == finish_reason::length);
  const told t = alone(greedy(1, prompt_of(10), 8), c);
  CHECK(t.finish == finish_reason::error);
  CHECK(t.code == errc::limit);
}

TEST_CASE("one more than may run and wait is refused") {
  engine_core::config c = roomy();
  c.bounds.max_num_seqs = 2;
  c.max_waiting = 3;
  bench b{c};
  for (std::uint64_t id = 1; id <= 6; ++id)
    b.core.submit(greedy(id, {5}, 3));
  b.run();
  for (std::uint64_t id = 1; id <= 5; ++id)
    CHECK(b.said[id].finish == finish_reason::length);
  CHECK(b.said[6].finish == finish_reason::error);
  CHECK(b.said[6].code == errc::limit);
}

TEST_CASE("an id that lives is not taken twice, one that ended is") {
  bench b{roomy()};
  b.core.submit(greedy(1, {5}, 3));
  b.core.submit(greedy(1, {6}, 3));
  const step_result first = b.core.step();
  CHECK(first.outputs.size() == 2);
  CHECK(first.outputs[0].finish == finish_reason::error);
  b.run();
  b.said.clear();
  CHECK(b.reply_to(greedy(1, {6}, 3)).tokens.size() == 3);
}

TEST_CASE("a model that gives NaN ends the choice with an error, not others") {
  bench b{roomy()};
  b.runner.distort = [](std::span<float> row, std::int32_t token) {
    if (token == 39)
      row[7] = std::nanf("");
  };
  b.core.submit(greedy(1, {5, 39}, 10));
  request ok = greedy(2, {5, 6}, 3);
  ok.params.logit_bias = {{39, -100.f}};
  b.core.submit(ok);
  CHECK(b.run());
  CHECK(b.said[1].finish == finish_reason::error);
  CHECK_FALSE(b.said[1].message.empty());
  CHECK(b.said[2].finish == finish_reason::length);
  CHECK(b.core.now().kv_blocks_free == 400);
}

// -- the same tokens whatever happens around ----------------------------------

TEST_CASE("a choice gives the same tokens alone and in any company") {
  for (unsigned seed = 0; seed < 20; ++seed) {
    std::mt19937 random{seed};
    std::vector<request> requests;
    for (std::uint64_t id = 0; id < 40; ++id)
      requests.push_back(random_request(id, random));
    bench crowd{roomy()};
    crowd.submit_all(requests, random, 2);
    REQUIRE(crowd.run());
    for (const request& r : requests) {
      INFO("seed " << seed << " id " << r.id);
      CHECK(crowd.said[r.id].same_as(alone(r)));
    }
  }
}

TEST_CASE("a chunked prompt gives the same as a whole one") {
  for (unsigned seed = 0; seed < 40; ++seed) {
    std::mt19937 random{seed};
    const request r = random_request(1, random);
    const told whole = alone(r);
    for (std::uint32_t rows : {1, 2, 3, 5, 7}) {
      engine_core::config c = roomy();
      c.bounds.max_num_batched_tokens = rows;
      c.bounds.max_scored_rows = 1 + rows / 2;
      CHECK(alone(r, c).same_as(whole));
    }
  }
}

TEST_CASE("a cached prefix gives the same and is counted") {
  bench b{roomy()};
  request r = greedy(1, prompt_of(22), 9);
  const told first = b.reply_to(r);
  CHECK(first.cached_tokens == 0);
  r.id = 2;
  const stats before = b.core.now();
  const told second = b.reply_to(r);
  CHECK(second.cached_tokens == 20);
  CHECK(second.same_as(first));
  CHECK(b.core.now().prompt_tokens - before.prompt_tokens == 2);
  CHECK(b.core.now().prefix_queries == 44);
  CHECK(b.core.now().prefix_hits == 20);
}

TEST_CASE("the last prompt token is computed even if all is cached") {
  bench b{roomy()};
  request r = greedy(1, prompt_of(20), 3);
  const told first = b.reply_to(r);
  r.id = 2;
  CHECK(b.reply_to(r).cached_tokens == 16);
  CHECK(b.said[2].same_as(first));
}

TEST_CASE("the next turn of a chat finds prompt and output in the cache") {
  bench b{roomy()};
  request r = greedy(1, prompt_of(10), 11);
  const told first = b.reply_to(r);
  request next = greedy(2, r.prompt, 5);
  next.prompt.insert(next.prompt.end(), first.tokens.begin(),
                     first.tokens.end());
  next.prompt.push_back(9);
  // 20 of the 21 tokens have keys and values: the last was drawn and not read.
  CHECK(b.reply_to(next).cached_tokens == 20);
  CHECK(b.said[2].same_as(alone(next)));
}

TEST_CASE("without prefix caching nothing is looked up") {
  engine_core::config c = roomy();
  c.enable_prefix_caching = false;
  bench b{c};
  request r = greedy(1, prompt_of(20), 3);
  b.reply_to(r);
  r.id = 2;
  CHECK(b.reply_to(r).cached_tokens == 0);
  CHECK(b.core.now().prefix_queries == 0);
}

TEST_CASE("prompt_logprobs take nothing from the cache but fill it") {
  bench b{roomy()};
  request r = greedy(1, prompt_of(20), 3);
  r.params.prompt_logprobs = 1;
  b.reply_to(r);
  r.id = 2;
  CHECK(b.reply_to(r).cached_tokens == 0);
  CHECK(b.said[2].prompt_logprobs == b.said[1].prompt_logprobs);
  CHECK(b.core.now().prefix_queries == 0);
  r.id = 3;
  r.params.prompt_logprobs = -1;
  CHECK(b.reply_to(r).cached_tokens == 16);
}

TEST_CASE("the cache forgets the least recently used prefix first") {
  engine_core::config c = roomy();
  c.kv_blocks = 12;
  c.max_model_len = 48;
  bench b{c};
  std::uint64_t id = 0;
  auto cached = [&](std::uint32_t seed) {
    return b.reply_to(greedy(++id, prompt_of(17, seed), 1)).cached_tokens;
  };
  CHECK(cached(1) == 0);
  CHECK(cached(2) == 0);
  CHECK(cached(1) == 16);
  CHECK(cached(3) == 0); // takes from 2
  CHECK(cached(1) == 16);
  CHECK(cached(2) < 16);
}

// -- streams, chunks, preemption ----------------------------------------------

TEST_CASE("a 4,000-token prompt never stops a running stream") {
  engine_core::config c = roomy();
  c.max_model_len = 5000;
  c.kv_blocks = 2000;
  bench b{c};
  for (std::uint64_t id = 1; id <= 8; ++id)
    b.core.submit(greedy(id, prompt_of(5, id), 200));
  b.step();
  const std::uint64_t begin = b.core.now().steps;
  b.core.submit(greedy(9, prompt_of(4000), 2));
  while (b.said[9].tokens.empty()) {
    const step_result r = b.step();
    std::size_t streams = 0;
    for (const output& o : r.outputs)
      streams += o.id <= 8 && o.tokens.size() == 1;
    REQUIRE(streams == 8);
  }
  // 64 rows a step, 8 of them for the streams.
  CHECK(b.core.now().steps - begin == (4000 + 55) / 56);
}

TEST_CASE("a step has no more rows than max_num_batched_tokens") {
  std::mt19937 random{4};
  engine_core::config c = roomy();
  c.bounds.max_num_batched_tokens = 16;
  bench b{c};
  for (std::uint64_t id = 0; id < 60; ++id)
    b.core.submit(random_request(id, random));
  while (b.core.living() > 0) {
    b.step();
    REQUIRE(b.runner.last_plan.tokens.size() <= 16);
    REQUIRE(b.runner.last_plan.logit_rows.size() <= 16 + 16);
  }
}

TEST_CASE("a full pool preempts the youngest, which later gives the same") {
  engine_core::config c = roomy();
  c.kv_blocks = 12; // three sequences grow to 9 blocks each
  c.max_model_len = 40;
  bench b{c};
  std::vector<request> requests;
  for (std::uint64_t id = 1; id <= 3; ++id) {
    requests.push_back(ask(id, prompt_of(6, id), 30));
    requests.back().params.ignore_eos = true;
    requests.back().params.logprobs = 1;
    requests.back().params.repetition_penalty = 1.2f;
    b.core.submit(requests.back());
  }
  REQUIRE(b.run());
  CHECK(b.core.now().preemptions > 0);
  CHECK(b.core.now().resumed_tokens > 0);
  CHECK(b.core.now().output_tokens == 90);
  for (const request& r : requests)
    CHECK(b.said[r.id].same_as(alone(r)));
  CHECK(b.said[1].steps.back() == 30); // the oldest never waited
  CHECK(b.said[1].steps.back() < b.said[3].steps.back());
  CHECK(b.core.now().kv_blocks_free == 12);
}

TEST_CASE("recomputed output rows are counted as resumed, drawn ones are not") {
  bench b{roomy()};
  request r = greedy(1, prompt_of(6), 10);
  b.reply_to(r);
  CHECK(b.core.now().resumed_tokens == 0);
  CHECK(b.core.now().prompt_tokens == 6);
  CHECK(b.core.now().output_tokens == 10);
  bench other{roomy()};
  r.resume = {b.said[1].tokens.begin(), b.said[1].tokens.begin() + 4};
  other.reply_to(r);
  CHECK(other.core.now().prompt_tokens == 6);
  CHECK(other.core.now().resumed_tokens == 4);
  CHECK(other.core.now().output_tokens == 6);
}

TEST_CASE("random work on tiny pools ends, gives the same and leaks nothing") {
  std::uint64_t preemptions = 0;
  for (unsigned seed = 0; seed < 2000; ++seed) {
    std::mt19937 random{seed};
    const auto c = tiny(random, 8);
    bench b{c};
    std::vector<request> requests;
    for (std::uint64_t id = 0; id < 3 + random() % 6; ++id) {
      requests.push_back(random_request(id, random));
      b.core.submit(requests.back());
      if (random() % 2)
        b.step();
      if (random() % 8 == 0)
        b.core.cancel(random() % (id + 1));
    }
    INFO("seed " << seed);
    REQUIRE(b.run(3000));
    const stats now = b.core.now();
    preemptions += now.preemptions;
    REQUIRE(now.kv_blocks_free == c.kv_blocks);
    REQUIRE(now.running + now.waiting + now.waiting_tokens == 0);
    REQUIRE(now.finished == requests.size());
    for (const request& r : requests) {
      REQUIRE(positions_of(r) <= 60);
      const told& got = b.said[r.id];
      if (got.finish != finish_reason::cancelled && seed % 4 == 0)
        REQUIRE(got.same_as(alone(r)));
    }
  }
  CHECK(preemptions > 500);
}

// -- resume -------------------------------------------------------------------

TEST_CASE("a choice cut at any token goes on exactly as if never cut") {
  for (unsigned seed = 0; seed < 30; ++seed) {
    std::mt19937 random{seed};
    request r = random_request(1, random);
    r.params.max_tokens = 1 + random() % 30;
    const told whole = alone(r);
    for (std::size_t cut = 0; cut <= whole.tokens.size(); ++cut) {
      request rest = r;
      rest.resume.assign(whole.tokens.begin(), whole.tokens.begin() + cut);
      const told got = alone(rest);
      INFO("seed " << seed << " cut " << cut);
      CHECK(got.tokens == std::vector<token_id>(whole.tokens.begin() + cut,
                                                whole.tokens.end()));
      CHECK(got.finish == whole.finish);
      CHECK(got.stop_token == whole.stop_token);
      if (r.params.logprobs >= 0)
        CHECK(std::equal(got.logprobs.begin(), got.logprobs.end(),
                         whole.logprobs.begin() + cut, whole.logprobs.end()));
    }
  }
}

TEST_CASE("a choice cut at max_model_len has ended") {
  request r = greedy(1, prompt_of(190), 50);
  const told whole = alone(r);
  r.resume = whole.tokens;
  const told got = alone(r);
  CHECK(got.tokens.empty());
  CHECK(got.finish == finish_reason::length);
}

TEST_CASE("a resumed choice does not report its prompt again") {
  request r = greedy(1, prompt_of(9), 6);
  r.params.prompt_logprobs = 1;
  r.resume = {alone(r).tokens[0]};
  CHECK(alone(r).prompt_logprobs.empty());
}

// -- cancel and counters ------------------------------------------------------

TEST_CASE("cancelling frees the blocks at once, at any step") {
  for (int steps = 0; steps < 12; ++steps) {
    bench b{roomy()};
    b.core.submit(greedy(1, prompt_of(150), 20));
    b.core.submit(greedy(2, prompt_of(150), 20));
    for (int i = 0; i < steps; ++i)
      b.step();
    b.core.cancel(1);
    b.core.cancel(2);
    b.core.cancel(3);
    CHECK(b.core.now().kv_blocks_free == 400);
    CHECK(b.core.now().waiting_tokens == 0);
    b.step();
    CHECK(b.core.now().steps == static_cast<std::uint64_t>(steps));
    CHECK(b.said[1].finish == finish_reason::cancelled);
    CHECK(b.said[2].finish == finish_reason::cancelled);
    CHECK(b.said.size() == 2);
  }
}

TEST_CASE("cancelling one leaves the blocks it shares with another") {
  bench b{roomy()};
  b.reply_to(greedy(1, prompt_of(21), 1));
  b.core.submit(greedy(2, prompt_of(21), 20));
  b.core.submit(greedy(3, prompt_of(21), 20));
  b.step();
  CHECK(b.core.now().kv_blocks_free == 400 - 5 - 2);
  b.core.cancel(2);
  CHECK(b.core.now().kv_blocks_free == 400 - 5 - 1);
  b.run();
  CHECK(b.said[3].same_as(alone(greedy(3, prompt_of(21), 20))));
}

TEST_CASE("gauges follow the sequences") {
  engine_core::config c = roomy();
  c.bounds.max_num_seqs = 1;
  c.bounds.max_num_batched_tokens = 10;
  bench b{c};
  b.core.submit(greedy(1, prompt_of(25), 2));
  b.core.submit(greedy(2, prompt_of(7), 2));
  CHECK(b.core.now().waiting == 2);
  CHECK(b.core.now().waiting_tokens == 32);
  const stats now = b.step().now;
  CHECK(now.running == 1);
  CHECK(now.waiting == 1);
  CHECK(now.waiting_tokens == 22);
  CHECK(now.kv_blocks_total == 400);
  CHECK(now.kv_blocks_free == 397);
  b.run();
  CHECK(b.core.now().waiting_tokens == 0);
  CHECK(b.core.now().finished == 2);
  CHECK(b.core.now().weight_bytes_read == 1000 * b.core.now().steps);
}

TEST_CASE("an idle core makes no forward pass") {
  bench b{roomy()};
  CHECK(b.step().outputs.empty());
  CHECK(b.runner.passes == 0);
}
