#include "tests/unit/router/simulated_replicas.hpp"

using namespace troupe;
using namespace troupe::router;
using troupe::test::simulated_replicas;
using namespace std::chrono_literals;

namespace {

constexpr std::uint32_t length = 12;

enum class word { before, after, never };

/// Loses the replica of request 1's choice 0 and lets its streams go on.
void lose(simulated_replicas& run, word how) {
  auto home = run.home(1);
  REQUIRE(home != 0);
  if (how == word::before)
    run.notice(home);
  run.kill(home);
  if (how == word::after)
    run.notice(home);
  if (how == word::never)
    run.advance(300ms);
}

void finish(simulated_replicas& run) {
  for (int i = 0; i < 200; ++i)
    run.step_all();
}

} // namespace

TEST_CASE("a stream that loses its replica at any token goes on as if nothing "
          "had been") {
  for (auto how : {word::before, word::after, word::never})
    for (std::uint32_t at = 0; at <= length; ++at) {
      CAPTURE(at, static_cast<int>(how));
      simulated_replicas run;
      run.start(1);
      run.start(2);
      run.submit(run.ask(1, length));
      for (std::uint32_t i = 0; i < at; ++i)
        run.step_all();
      if (at < length)
        lose(run, how);
      finish(run);
      CHECK(run.whole(1, length));
      CHECK(run.table.counts().streams_moved == (at > 0 && at < length));
    }
}

TEST_CASE("all choices of a request move, each with its own output") {
  for (std::uint32_t at = 0; at < length; ++at) {
    CAPTURE(at);
    simulated_replicas run;
    run.start(1);
    run.submit(run.ask(1, length, 4));
    for (std::uint32_t i = 0; i < at; ++i)
      run.step_all();
    run.start(2);
    lose(run, word::after);
    for (auto& [id, record] : run.records(2))
      CHECK(record.output.size() == at);
    finish(run);
    CHECK(run.whole(1, length, 4));
  }
}

TEST_CASE("a moved choice goes where an undisturbed one would have stayed: "
          "output and a new id, the rest as it was") {
  simulated_replicas run;
  run.start(1);
  run.submit(run.ask(1, length));
  run.step_all();
  run.step_all();
  auto before = run.records(1).begin()->second;
  run.start(2);
  run.kill(1);
  run.notice(1);
  REQUIRE(run.records(2).size() == 1);
  auto after = run.records(2).begin()->second;
  CHECK(after.id != before.id);
  CHECK(!after.alone);
  CHECK(after.output == run.given[{1, 0}]);
  after.id = before.id;
  CHECK(after == before);
}

TEST_CASE("only the first replica says what its cache held") {
  simulated_replicas run;
  run.start(1);
  run.start(2);
  run.submit(run.ask(1, 3));
  run.step_all();
  lose(run, word::after);
  finish(run);
  CHECK(run.cached[{1, 0}] == std::vector<std::uint32_t>{2, 0, 0});
}

TEST_CASE("ten kills in a row end no stream, whether or not it gets a token in "
          "between") {
  for (auto tokens_between : {0, 1}) {
    CAPTURE(tokens_between);
    simulated_replicas run;
    run.start(1);
    run.submit(run.ask(1, length));
    run.step_all();
    for (std::uint64_t i = 1; i <= 10; ++i) {
      run.start(i + 1);
      run.kill(i);
      run.notice(i);
      for (int k = 0; k < tokens_between; ++k)
        run.step_all();
    }
    finish(run);
    CHECK(run.whole(1, length));
    CHECK(run.table.counts().streams_moved == 10);
    CHECK(run.table.counts().choices_suspected == 0);
  }
}

TEST_CASE("a choice without a token waits for the word on its replica's death "
          "too, then moves") {
  simulated_replicas run;
  run.start(1);
  run.submit(run.ask(1, length));
  run.start(2);
  run.kill(1);
  CHECK(run.home(1) == 0);
  CHECK(run.table.choices_waiting() == 1);
  run.advance(299ms);
  CHECK(run.home(1) == 0);
  CHECK(run.table.next_deadline() == run.now + 1ms);
  run.advance(1ms);
  CHECK(run.home(1) == 2);
}

TEST_CASE("word that came before the loss is kept, the last so many") {
  table_limits limits;
  limits.notices_max = 2;
  simulated_replicas run{limits};
  run.start(1);
  run.submit(run.ask(1, length));
  run.step_all();
  run.notice(1);
  run.notice(8);
  run.start(2);
  run.kill(1);
  CHECK(run.home(1) == 2);
  run.notice(2);
  run.notice(8); // known already: it takes no place
  run.notice(9);
  run.notice(10);
  run.start(3);
  run.kill(2);
  CHECK(run.home(1) == 0);
  run.advance(300ms);
  CHECK(run.home(1) == 3);
}

TEST_CASE("late words change nothing") {
  simulated_replicas run;
  run.start(1);
  run.start(2);
  run.submit(run.ask(1, length));
  run.step_all();
  auto home = run.home(1);
  auto running = run.running(home);
  run.kill(home);
  run.advance(300ms);
  auto next = run.home(1);
  run.notice(home, true, running);
  CHECK(run.home(1) == next);
  finish(run);
  CHECK(run.whole(1, length));
}

TEST_CASE("streams stay in their arithmetic class while it is listed, however "
          "full or far") {
  simulated_replicas run;
  run.start(1, "A");
  run.submit(run.ask(1, length));
  run.step_all();
  run.list(1, false);
  run.start(2, "A", 1);
  run.submit(run.ask(2, length));
  CHECK(run.home(2) == 2);
  run.start(3, "B");
  run.kill(1);
  run.notice(1);
  CHECK(run.home(1) == 0);
  for (std::uint32_t i = 0; i < length; ++i)
    run.step_all();
  CHECK(run.home(1) == 2);
  finish(run);
  CHECK(run.whole(1, length));
  CHECK(run.table.counts().streams_class_changed == 0);
}

TEST_CASE("where no replica of its class is left a stream goes on in another, "
          "and says so") {
  simulated_replicas run;
  run.start(1, "A");
  run.start(2, "B");
  run.start(3, "A");
  run.list(2, false);
  run.submit(run.ask(1, 4));
  run.step_all();
  run.list(2, true);
  auto home = run.home(1);
  auto same = home == 1 ? 3u : 1u;
  run.kill(home);
  run.notice(home);
  CHECK(run.home(1) == same);
  run.step_all();
  run.kill(same);
  run.notice(same);
  CHECK(run.home(1) == 2);
  run.step_all();
  run.step_all();
  CHECK(run.classes[{1, 0}] == std::vector<std::string>{"A", "A", "B", "B"});
  CHECK(run.table.counts().streams_class_changed == 1);
}

TEST_CASE("a deployment that wants exactness lets a stream wait for its class, "
          "for a while") {
  simulated_replicas run;
  run.exact = true;
  run.start(1, "A");
  run.submit(run.ask(1, length));
  run.step_all();
  run.start(2, "B");
  run.kill(1);
  run.notice(1);
  CHECK(run.home(1) == 0);
  run.submit(run.ask(2, length)); // has no class yet
  CHECK(run.home(2) == 2);
  run.advance(29s);
  run.start(3, "A");
  CHECK(run.home(1) == 3);
  run.kill(3);
  run.notice(3);
  CHECK(run.table.next_deadline() == run.now + 30s);
  run.advance(30s);
  CHECK(run.failed.at(1).code == errc::unavailable);
  finish(run);
  CHECK(run.whole(2, length));
}

TEST_CASE("what waits for 30 s fails; a moved stream's time begins with its "
          "loss") {
  simulated_replicas run;
  run.start(1);
  run.submit(run.ask(1, length));
  run.step_all();
  run.advance(100s);
  run.kill(1);
  run.notice(1);
  run.advance(29'999ms);
  CHECK(run.failed.empty());
  run.advance(1ms);
  CHECK(run.failed.at(1).code == errc::unavailable);
  CHECK(run.released.count(1) == 1);
  CHECK(!run.table.next_deadline());
}

TEST_CASE("what was submitted first goes first, also when it comes back") {
  simulated_replicas run;
  run.start(1, "A");
  run.submit(run.ask(1, length));
  run.step_all();
  run.list(1, false);
  run.now += 1s;
  run.submit(run.ask(2, length)); // waits
  run.kill(1);
  run.notice(1);
  run.start(2, "A", 1);
  CHECK(run.home(1) == 2);
  CHECK(run.home(2) == 0);
}

TEST_CASE("a started choice that is refused as unavailable goes on elsewhere "
          "at once") {
  simulated_replicas run;
  run.start(1);
  run.submit(run.ask(1, length));
  run.step_all();
  run.start(2);
  for (auto reason : {protocol::finish::error, protocol::finish::cancelled}) {
    auto home = run.home(1);
    protocol::token_batch batch;
    batch.incarnation = home;
    protocol::choice_tokens refusal;
    refusal.id = run.records(home).begin()->first;
    refusal.reason = reason;
    refusal.code = errc::unavailable;
    batch.choices = {refusal};
    run.drop(home, refusal.id);
    run.obey(run.table.tokens(batch, run.now));
    CHECK(run.home(1) == 3 - home);
    run.step_all();
    run.advance(1s);
  }
  finish(run);
  CHECK(run.whole(1, length));
}

TEST_CASE("a replica that left the table keeps its streams; when it is lost "
          "they move") {
  simulated_replicas run;
  run.start(1);
  run.submit(run.ask(1, length));
  run.submit(run.ask(2, 3));
  run.step_all();
  run.start(2);
  run.list(1, false);
  run.step_all();
  run.step_all();
  CHECK(run.home(1) == 1);
  CHECK(run.whole(2, 3));
  run.kill(1);
  run.notice(1);
  CHECK(run.home(1) == 2);
  finish(run);
  CHECK(run.whole(1, length));
}

TEST_CASE("what a session says after it was cut is nobody's, also when it is "
          "there again") {
  simulated_replicas run;
  run.start(1);
  run.submit(run.ask(1, length));
  run.step_all();
  auto old = run.records(1).begin()->second;
  protocol::token_batch stale;
  stale.incarnation = 1;
  protocol::choice_tokens news;
  news.id = old.id;
  news.tokens = {run.token(old, old.output.size())};
  stale.choices = {news};
  run.cut(1);
  CHECK(run.table.tokens(stale, run.now).empty());
  run.advance(300ms);
  CHECK(run.home(1) == 1); // attached to again
  CHECK(run.table.tokens(stale, run.now).empty());
  finish(run);
  CHECK(run.whole(1, length));
  CHECK(run.table.tokens(stale, run.now).empty());
}

TEST_CASE("a choice moves 64 times and then fails") {
  simulated_replicas run;
  run.start(1);
  run.submit(run.ask(1, length));
  run.step_all();
  for (std::uint64_t i = 1; i <= 64; ++i) {
    run.start(i + 1);
    run.kill(i);
    run.notice(i);
    REQUIRE(run.home(1) == i + 1);
  }
  run.start(66);
  run.kill(65);
  run.notice(65);
  CHECK(run.failed.at(1).code == errc::unavailable);
  CHECK(run.table.requests() == 0);
}

TEST_CASE("time that a choice spent waiting is taken off its limit") {
  simulated_replicas run;
  run.start(1);
  auto asked = run.ask(1, length);
  asked.choices[0].deadline_ms = 10'000;
  run.submit(asked);
  run.step_all();
  run.now += 4s;
  run.start(2);
  run.kill(1);
  run.notice(1);
  CHECK(run.records(2).begin()->second.deadline_ms == 6'000);
  run.now += 60s;
  run.start(3);
  run.kill(2);
  run.notice(2);
  CHECK(run.records(3).begin()->second.deadline_ms == 1);
}

TEST_CASE("a client that leaves while its stream waits for word takes it "
          "along") {
  simulated_replicas run;
  run.start(1);
  run.start(2);
  run.submit(run.ask(1, length, 2));
  run.step_all();
  for (auto replica : {1u, 2u})
    run.kill(replica);
  run.start(3);
  run.obey(run.table.cancel_choice(1, 0, run.now));
  run.advance(300ms);
  CHECK(run.home(1, 0) == 0);
  CHECK(run.home(1, 1) == 3);
  run.kill(3);
  run.obey(run.table.cancel_request(1, run.now));
  CHECK(run.released.count(1) == 1);
  run.advance(300ms);
  CHECK(run.failed.empty());
  CHECK(run.table.choices_waiting() == 0);
  CHECK(!run.table.next_deadline());
}

TEST_CASE("without a word a choice that got no token fails at its third lost "
          "replica, and one with tokens is computed alone from then on") {
  simulated_replicas run;
  run.start(1);
  run.submit(run.ask(1, length));
  run.step_all();
  run.submit(run.ask(2, length));
  for (std::uint64_t i = 1; i <= 3; ++i) {
    run.start(i + 1);
    run.kill(i);
    run.advance(300ms);
    CHECK(run.records(i + 1).begin()->second.alone == (i == 3));
  }
  CHECK(run.failed.at(2).code == errc::unavailable);
  run.step_all();
  run.start(5);
  run.kill(4);
  run.notice(4);
  CHECK(run.records(5).begin()->second.alone);
  finish(run);
  CHECK(run.whole(1, length));
}

TEST_CASE("choices go to replicas of the card that made their ids while one is "
          "listed, else to any") {
  simulated_replicas run;
  run.start(1, "A", 0, "old");
  run.start(2, "A", 0, "new");
  for (std::uint64_t i = 1; i <= 8; ++i) {
    auto asked = run.ask(i, length);
    asked.card_hash = i % 2 == 0 ? "new" : "old";
    run.submit(asked);
    CHECK(run.home(i) == (i % 2 == 0 ? 2 : 1));
  }
  run.step_all();
  run.start(3, "B", 0, "old");
  run.kill(1);
  run.notice(1);
  CHECK(run.home(1) == 3); // the card comes before the class
  run.kill(3);
  run.notice(3);
  CHECK(run.home(1) == 2);
  finish(run);
  for (std::uint64_t i = 1; i <= 8; ++i)
    CHECK(run.whole(i, length));
}
