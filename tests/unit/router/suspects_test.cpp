#include "router/suspects.hpp"
#include "tests/unit/router/simulated_replicas.hpp"

using namespace troupe;
using namespace troupe::router;
using troupe::test::simulated_replicas;
using namespace std::chrono_literals;

namespace {

constexpr std::uint32_t length = 6;

void finish(simulated_replicas& run) {
  for (int i = 0; i < 400; ++i)
    run.step_all();
}

/// 32 streams at two replicas, the 17th of which is poison.
simulated_replicas poisoned(table_limits limits = {}) {
  simulated_replicas run{limits};
  run.poison = 17;
  run.start(1);
  run.start(2);
  for (std::uint64_t i = 1; i <= 32; ++i)
    run.submit(run.ask(i, length));
  return run;
}

ban_list::time_point at(std::chrono::seconds when) {
  return ban_list::time_point{when};
}

fingerprint print(unsigned char first) {
  fingerprint out{};
  out[0] = first;
  return out;
}

/// The same request of another client.
submission equal_to(submission what, std::uint64_t number) {
  what.request = number;
  for (auto& record : what.choices)
    record.request_id = "r" + std::to_string(number);
  return what;
}

/// The replica dies of what it computes; another one takes its place.
void die(simulated_replicas& run, std::uint64_t incarnation) {
  auto running = run.running(incarnation);
  run.start(incarnation + 1);
  run.kill(incarnation);
  run.notice(incarnation, true, running);
}

} // namespace

TEST_CASE("one poison among 32 streams: two replicas die, 31 streams finish "
          "exactly, it is refused with its incident") {
  using word = simulated_replicas::word;
  for (auto how : {word::after, word::before}) {
    CAPTURE(static_cast<int>(how));
    auto run = poisoned();
    run.poison_word = how;
    finish(run);
    CHECK(run.deaths == 2);
    for (std::uint64_t i = 1; i <= 32; ++i)
      CHECK(run.whole(i, length) == (i != 17));
    REQUIRE(run.failed.count(17) == 1);
    CHECK(run.failed.at(17).code == errc::internal);
    auto incident = run.incidents.at(17);
    CHECK(incident.size() == 16);
    CHECK(incident.find_first_not_of("0123456789abcdef") == std::string::npos);
    CHECK(run.failed.at(17).message.find(incident) != std::string::npos);
    CHECK(run.alone_max == 1);
    CHECK(run.table.counts().requests_convicted == 1);

    // The same request under another number, seed and n.
    auto again = run.ask(17, length, 2);
    again.request = 100;
    for (auto& record : again.choices)
      record.params.seed = 99;
    run.now += 9min;
    run.submit(again);
    CHECK(run.incidents.at(100) == incident);
    CHECK(run.released.count(100) == 1);
    CHECK(run.table.counts().requests_banned == 1);
    run.poison = 0;
    run.now += 1min;
    again.request = 101;
    run.submit(again);
    finish(run);
    CHECK(run.failed.count(101) == 0);
    CHECK(run.released.count(101) == 1);
  }
}

TEST_CASE("choices outside the step that died go on at once, those in it one "
          "at a time") {
  simulated_replicas run;
  run.start(1);
  for (std::uint64_t i = 1; i <= 6; ++i)
    run.submit(run.ask(i, length));
  run.step_all();
  auto members = run.running(1);
  members.resize(4); // a step of four
  run.start(2);
  run.kill(1);
  run.notice(1, true, members);
  CHECK(run.records(2).size() == 3);
  CHECK(run.table.choices_waiting() == 3);
  CHECK(run.alone_max == 1);
  CHECK(run.table.counts().choices_suspected == 4);
  finish(run);
  CHECK(run.alone_max == 1);
  for (std::uint64_t i = 1; i <= 6; ++i)
    CHECK(run.whole(i, length));
}

TEST_CASE("nobody is guilty at the first death, nor by what others did") {
  simulated_replicas run;
  run.start(1);
  run.submit(run.ask(1, length));
  run.step_all();
  auto die = [&](std::uint64_t from, bool own_fault) {
    auto running = run.running(from);
    run.start(from + 1);
    run.kill(from);
    run.notice(from, own_fault, running);
  };
  die(1, true);
  CHECK(run.records(2).begin()->second.alone);
  die(2, false); // killed while it was alone: still no more than a suspect
  CHECK(run.records(3).begin()->second.alone);
  run.step_all(); // a token clears it
  die(3, true);
  CHECK(run.failed.empty());
  run.step_all();
  die(4, true);
  CHECK(run.failed.empty());
  die(5, true);
  CHECK(run.failed.at(1).code == errc::internal);
}

TEST_CASE("a death speaks once against a request, however many choices of it "
          "were there") {
  suspicion_list known{8, 10min};
  auto die = [&](std::uint64_t incarnation, bool watched) {
    protocol::death_notice notice;
    notice.incarnation = incarnation;
    notice.own_fault = true;
    notice.running = {{1, 1}, {1, 2}};
    sending choice;
    choice.what = print(1);
    choice.watched = watched;
    auto first = weigh(notice, choice, known, at(0s));
    auto second = weigh(notice, choice, known, at(0s));
    return std::pair{first, second};
  };
  constexpr std::pair both{verdict::suspect, verdict::suspect};
  CHECK(die(1, false) == both);
  CHECK(die(2, true) == both);
  CHECK(die(3, true).first == verdict::guilty);
}

TEST_CASE("a suspect is one until it has drawn more than can have been lost") {
  for (std::uint32_t drawn = 0; drawn <= protocol::alone_tokens; ++drawn) {
    CAPTURE(drawn);
    simulated_replicas run{table_limits{}};
    run.start(1);
    run.submit(run.ask(1, length));
    run.step_all();
    auto running = run.running(1);
    run.start(2);
    run.kill(1);
    run.notice(1, true, running);
    for (std::uint32_t i = 0; i < drawn; ++i)
      run.step_all();
    running = run.running(2);
    run.start(3);
    run.kill(2);
    run.notice(2, true, running);
    CHECK(run.failed.count(1) == (drawn < protocol::alone_tokens));
  }
}

TEST_CASE("a suspect that was not alone after all is not guilty") {
  simulated_replicas run;
  run.start(1);
  run.submit(run.ask(1, length));
  run.step_all();
  auto running = run.running(1);
  run.start(2);
  run.kill(1);
  run.notice(1, true, running);
  running = run.running(2);
  running.push_back({1, 1}); // of another router
  run.start(3);
  run.kill(2);
  run.notice(2, true, running);
  CHECK(run.failed.empty());
  CHECK(run.home(1) == 3);
}

TEST_CASE("choices of other routers are not one's own") {
  simulated_replicas run;
  run.start(1);
  run.submit(run.ask(1, length));
  run.step_all();
  auto running = run.running(1);
  running[0].first = simulated_replicas::router + 1;
  run.start(2);
  run.kill(1);
  run.notice(1, true, running);
  CHECK(!run.records(2).begin()->second.alone);
  CHECK(run.table.counts().choices_suspected == 0);
}

TEST_CASE("the next suspect's turn comes when one ends, leaves or is refused") {
  simulated_replicas run;
  run.start(1);
  for (std::uint64_t i = 1; i <= 3; ++i)
    run.submit(run.ask(i, length));
  run.step_all();
  auto running = run.running(1);
  run.start(2);
  run.kill(1);
  run.notice(1, true, running);
  CHECK(run.home(1) == 2);
  CHECK(run.home(2) == 0);
  run.obey(run.table.cancel_request(1, run.now));
  CHECK(run.home(2) == 2);
  CHECK(run.home(3) == 0);
  run.kill(2);
  run.start(3);
  CHECK(run.home(3) == 0); // not before there is word on 2
  run.notice(2);
  CHECK(run.home(2) == 3);
  CHECK(run.home(3) == 0);
  run.step_all();
  CHECK(run.home(3) == 3);
  finish(run);
  CHECK(run.whole(2, length));
  CHECK(run.whole(3, length));
  CHECK(run.alone_max == 1);
}

TEST_CASE("a poison prompt without a token ends two replicas as well") {
  simulated_replicas run;
  run.poison = 2;
  run.start(1);
  run.submit(run.ask(1, length));
  run.step_all();
  run.submit(run.ask(2, length));
  finish(run);
  CHECK(run.deaths == 2);
  CHECK(run.whole(1, length));
  CHECK(run.incidents.count(2) == 1);
}

TEST_CASE(
    "the same poison sent twice is found guilty once, and ends two replicas "
    "as one does") {
  simulated_replicas run;
  run.poison = 1;
  run.start(1);
  auto twin = run.ask(1, length);
  twin.request = 2;
  run.submit(run.ask(1, length));
  run.submit(twin);
  finish(run);
  CHECK(run.deaths == 2);
  REQUIRE(run.incidents.size() == 2);
  CHECK(run.incidents.at(1) == run.incidents.at(2));
}

TEST_CASE("a suspect whose client leaves is found guilty all the same") {
  for (bool hears_of_it = false;; hears_of_it = true) {
    CAPTURE(hears_of_it);
    simulated_replicas run;
    run.start(1);
    run.submit(run.ask(1, length));
    run.step_all();
    die(run, 1);
    auto running = run.running(2);
    if (hears_of_it) // too late
      run.obey(run.table.cancel_request(1, run.now));
    run.kill(2);
    if (!hears_of_it)
      run.obey(run.table.cancel_choice(1, 0, run.now));
    run.notice(2, true, running);
    CHECK(run.failed.empty());
    CHECK(run.table.counts().requests_convicted == 1);
    run.submit(equal_to(run.ask(1, length), 2));
    CHECK(run.incidents.count(2) == 1);
    if (hears_of_it)
      break;
  }
}

TEST_CASE("a request equal to a suspect is tried alone until one got further") {
  simulated_replicas run;
  run.start(1);
  auto first = run.ask(1, length);
  run.submit(first);
  run.step_all();
  auto running = run.running(1);
  run.obey(run.table.cancel_request(1, run.now));
  run.kill(1);
  run.notice(1, true, running);
  run.submit(equal_to(first, 2));
  run.submit(run.ask(3, length));
  run.start(2);
  auto is_alone = [&](std::uint64_t request) {
    for (auto& [id, record] : run.records(2))
      if (record.request_id == "r" + std::to_string(request))
        return record.alone;
    FAIL("it is not there");
    return false;
  };
  CHECK(is_alone(2));
  CHECK(!is_alone(3));
  run.step(2); // no further than the other one was
  run.submit(equal_to(first, 4));
  CHECK(run.home(4) == 0);
  run.step(2);
  CHECK(is_alone(4)); // as it came when that was to be seen
  run.step(2);
  run.submit(equal_to(first, 5));
  CHECK(!is_alone(5));
  finish(run);
  for (std::uint64_t i : {2, 3, 4, 5})
    CHECK(run.released.count(i) == 1);
  CHECK(run.failed.empty());
}

TEST_CASE("a word on a death is heard after its suspect was given up") {
  enum class way { ended_by_its_replica, after_the_wait };
  for (auto how : {way::ended_by_its_replica, way::after_the_wait}) {
    simulated_replicas run;
    run.start(1);
    run.submit(run.ask(1, length));
    run.step_all();
    die(run, 1);
    auto running = run.running(2);
    REQUIRE(running.size() == 1);
    if (how == way::ended_by_its_replica) {
      // Its engine is at it until the next step.
      run.drop(2, running[0].second);
      protocol::token_batch batch;
      batch.incarnation = 2;
      batch.choices.emplace_back();
      batch.choices[0].id = running[0].second;
      batch.choices[0].reason = protocol::finish::cancelled;
      run.obey(run.table.tokens(std::move(batch), run.now));
      run.kill(2);
    } else {
      run.kill(2);
      run.advance(1s);
    }
    CHECK(run.failed.empty());
    run.notice(2, true, running);
    CHECK(run.incidents.count(1) == 1);
  }
}

TEST_CASE("of equal suspects the next one waits until one is past the place "
          "where they ended a replica, unless that is far") {
  constexpr std::uint32_t many = 60;
  table_limits limits;
  for (std::uint32_t place : {1u, 3u, 40u}) {
    CAPTURE(place);
    simulated_replicas run{limits};
    run.start(1);
    auto first = run.ask(1, many);
    run.submit(first);
    for (std::uint32_t i = 0; i < place; ++i)
      run.step_all();
    run.list(1, false);
    run.submit(equal_to(first, 2));
    run.submit(equal_to(first, 3));
    auto running = run.running(1);
    run.obey(run.table.cancel_request(1, run.now));
    run.kill(1);
    run.notice(1, true, running);
    run.start(2);
    REQUIRE(run.home(2) == 2);
    auto trial = std::min(place + limits.trial_tokens, limits.trial_tokens_max);
    for (std::uint32_t i = 0; i < trial; ++i) {
      CHECK(run.home(3) == 0);
      run.step_all();
    }
    CHECK(run.home(3) == 2);
    CHECK(run.alone_max == 1);
  }
}

TEST_CASE("who is watched and in the step of a death twice more is guilty, "
          "alone or not") {
  suspicion_list known{8, 10s};
  protocol::death_notice notice;
  notice.own_fault = true;
  notice.running = {{1, 1}, {1, 2}};
  sending one{{"app", "m"}, "r1", print(1), 7, false};
  CHECK(weigh(notice, one, known, at(0s)) == verdict::suspect);
  CHECK(weigh(notice, one, known, at(0s)) == verdict::suspect); // told twice
  CHECK(known.find(one.what, at(0s))->tokens == 7);
  one.watched = true;
  one.tokens = 5;
  notice.incarnation = 2;
  CHECK(weigh(notice, one, known, at(1s)) == verdict::suspect);
  CHECK(known.find(one.what, at(1s))->tokens == 7);
  notice.incarnation = 3;
  CHECK(weigh(notice, one, known, at(2s)) == verdict::guilty);
}

TEST_CASE("equal requests at two replicas that die of them are guilty, but for "
          "those that are past that place") {
  simulated_replicas run{table_limits{}};
  run.start(1);
  auto first = run.ask(1, 12);
  run.submit(equal_to(first, 3));
  for (int i = 0; i < 8; ++i)
    run.step_all();
  run.list(1, false);
  run.start(2);
  run.submit(first);
  run.list(2, false);
  run.start(4);
  run.submit(equal_to(first, 2));
  die(run, 2);
  CHECK(run.failed.empty());
  die(run, 4);
  CHECK(run.incidents.count(1) == 1);
  CHECK(run.incidents.count(2) == 1);
  finish(run);
  CHECK(run.ended.count({3, 0}) == 1);
}

TEST_CASE("bans end in time, and the oldest give way") {
  ban_list bans{2, 10s};
  bans.add(print(1), "one", at(0s));
  bans.add(print(1), "other", at(5s));
  CHECK(bans.find(print(1), at(9s)) == "one");
  CHECK(!bans.find(print(1), at(10s)).has_value());
  bans.add(print(2), "two", at(6s));
  bans.add(print(3), "three", at(7s));
  CHECK(!bans.find(print(1), at(7s)).has_value());
  CHECK(bans.find(print(2), at(7s)) == "two");
  CHECK(bans.find(print(3), at(7s)) == "three");
  bans.expire(at(17s));
  CHECK(bans.empty());
}

TEST_CASE("a request's fingerprint leaves out what differs between its "
          "sendings, and nothing else") {
  protocol::request_record record;
  record.model = "m";
  record.prompt = {1, 2};
  auto first = fingerprint_of("app", record);
  auto same = record;
  same.id = 7;
  same.request_id = "x";
  same.output = {4};
  same.params.seed = 5;
  same.params.choice = 3;
  same.alone = true;
  same.deadline_ms = 9;
  CHECK(fingerprint_of("app", same) == first);
  CHECK(fingerprint_of("other", record) != first);
  auto other = record;
  other.prompt = {1, 2, 3};
  CHECK(fingerprint_of("app", other) != first);
  other = record;
  other.model = "n";
  CHECK(fingerprint_of("app", other) != first);
  other = record;
  other.params.max_tokens = 3;
  CHECK(fingerprint_of("app", other) != first);
}
