#include "engine/engine_thread.hpp"

#include "hash_runner.hpp"

#include <catch2/catch.hpp>

#include <atomic>
#include <condition_variable>
#include <ctime>
#include <map>
#include <mutex>
#include <thread>

using namespace troupe;
using namespace troupe::engine;

namespace {

loaded_model fake_model() {
  loaded_model m;
  m.config.bounds = {.max_num_seqs = 4,
                     .max_num_batched_tokens = 16,
                     .max_scored_rows = 4,
                     .block_size = 4};
  m.config.kv_blocks = 100;
  m.config.max_model_len = 100;
  m.config.max_waiting = 2;
  m.runner = std::make_unique<hash_runner>(30, 100, 4);
  m.card.max_model_len = 100;
  m.about.device = "fake";
  return m;
}

request ask(std::uint64_t id, std::uint32_t max_tokens) {
  request r;
  r.id = id;
  r.prompt = {1, 2, static_cast<token_id>(3 + id % 20)};
  r.params.max_tokens = max_tokens;
  r.params.ignore_eos = true;
  return r;
}

/// Collects outputs and lets a test wait for them.
class listener {
public:
  void operator()(step_result&& r) {
    std::lock_guard lock{mutex_};
    for (output& o : r.outputs) {
      tokens_[o.id].insert(tokens_[o.id].end(), o.tokens.begin(),
                           o.tokens.end());
      if (o.finish != finish_reason::none)
        ends_[o.id] = o.finish;
    }
    changed_.notify_all();
  }

  bool wait_for_ends(std::size_t count) {
    std::unique_lock lock{mutex_};
    return changed_.wait_for(lock, std::chrono::seconds{30},
                             [&] { return ends_.size() >= count; });
  }

  bool wait_for_token(std::uint64_t id) {
    std::unique_lock lock{mutex_};
    return changed_.wait_for(lock, std::chrono::seconds{30},
                             [&] { return !tokens_[id].empty(); });
  }

  finish_reason end_of(std::uint64_t id) {
    std::lock_guard lock{mutex_};
    return ends_[id];
  }

  std::vector<token_id> tokens_of(std::uint64_t id) {
    std::lock_guard lock{mutex_};
    return tokens_[id];
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, std::vector<token_id>> tokens_;
  std::map<std::uint64_t, finish_reason> ends_;
};

} // namespace

TEST_CASE("choices submitted from many threads all get their tokens") {
  listener heard;
  loaded_model model = fake_model();
  model.config.max_waiting = 1000;
  const auto e = make_engine(std::move(model));
  e->start(std::ref(heard));
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < 20; ++i)
        e->submit(ask(t * 20 + i, 5));
    });
  for (std::thread& t : threads)
    t.join();
  REQUIRE(heard.wait_for_ends(160));
  for (std::uint64_t id = 0; id < 160; ++id)
    CHECK(heard.tokens_of(id).size() == 5);
  CHECK(e->now().finished == 160);
  CHECK(e->about().device == "fake");
  CHECK(e->card().max_model_len == 100);
}

TEST_CASE("a cancel ends a running choice") {
  listener heard;
  loaded_model model = fake_model();
  auto runner = std::make_unique<hash_runner>(30, 100, 4);
  std::atomic<bool> runs = false;
  std::atomic<bool> is_cancelled = false;
  runner->distort = [&](std::span<float>, std::int32_t) {
    runs = true;
    runs.notify_one();
    is_cancelled.wait(false); // else it may be done before
  };
  model.runner = std::move(runner);
  const auto e = make_engine(std::move(model));
  e->start(std::ref(heard));
  e->submit(ask(1, 97));
  runs.wait(false);
  e->cancel(1);
  e->cancel(77);
  is_cancelled = true;
  is_cancelled.notify_one();
  REQUIRE(heard.wait_for_ends(1));
  CHECK(heard.end_of(1) == finish_reason::cancelled);
  CHECK(e->now().kv_blocks_free == 100);
}

TEST_CASE("a full inbox refuses, a wrong request is told so") {
  listener heard;
  const auto e = make_engine(fake_model());
  // Not started yet: nothing leaves the inbox.
  for (std::uint64_t id = 1; id <= 6; ++id)
    e->submit(ask(id, 3));
  CHECK(e->now().waiting == 6);
  e->submit(ask(7, 3));
  request wrong = ask(8, 3);
  wrong.prompt = {30};
  e->submit(wrong);
  e->start(std::ref(heard));
  REQUIRE(heard.wait_for_ends(8));
  for (std::uint64_t id = 1; id <= 6; ++id)
    CHECK(heard.end_of(id) == finish_reason::length);
  CHECK(heard.end_of(7) == finish_reason::error);
  CHECK(heard.end_of(8) == finish_reason::error);
  e->submit(ask(9, 3));
  REQUIRE(heard.wait_for_ends(9));
  CHECK(heard.end_of(9) == finish_reason::length);
}

TEST_CASE("an idle engine does not call and uses no processor time") {
  std::atomic<int> calls = 0;
  const auto e = make_engine(fake_model());
  e->start([&](step_result&&) { ++calls; });
  std::this_thread::sleep_for(std::chrono::milliseconds{50});
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds{200});
  const double used = double(std::clock() - before) / CLOCKS_PER_SEC;
  CHECK(calls == 0);
  CHECK(used < 0.1);
}

TEST_CASE("an engine can be destroyed at any moment") {
  for (int i = 0; i < 50; ++i) {
    listener heard;
    const auto e = make_engine(fake_model());
    if (i % 3 > 0)
      e->start(std::ref(heard));
    for (std::uint64_t id = 0; id < 5; ++id)
      e->submit(ask(id, 90));
    if (i % 3 == 2)
      REQUIRE(heard.wait_for_token(0));
  }
}

TEST_CASE("the longest step is known, but for the first") {
  listener heard;
  loaded_model model = fake_model();
  auto runner = std::make_unique<hash_runner>(30, 100, 4);
  runner->distort = [](std::span<float>, std::int32_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds{3});
  };
  model.runner = std::move(runner);
  const auto e = make_engine(std::move(model));
  e->start(std::ref(heard));
  e->submit(ask(1, 1));
  REQUIRE(heard.wait_for_ends(1));
  CHECK(e->now().steps == 1);
  CHECK(e->now().longest_step_ms == 0);
  e->submit(ask(2, 1));
  REQUIRE(heard.wait_for_ends(2));
  CHECK(e->now().longest_step_ms >= 3);
}

TEST_CASE("the engine's thread tells its watch of every step") {
  struct counting_watch final : step_watch {
    void begin(std::span<const owner> of) override {
      begun += of.size() == 1 && of[0] == owner{5, 6};
    }
    void end() override {
      ++ended;
    }
    std::atomic<int> begun = 0;
    std::atomic<int> ended = 0;
  } watch;
  listener heard;
  const auto e = make_engine(fake_model());
  e->start(std::ref(heard), &watch);
  request r = ask(1, 7);
  r.whose = {5, 6};
  e->submit(r);
  REQUIRE(heard.wait_for_ends(1));
  CHECK(watch.begun == 7);
  CHECK(watch.ended == 7);
}
