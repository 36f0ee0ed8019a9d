#include "simulated_replicas.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace troupe;
using namespace troupe::router;
using namespace std::chrono_literals;

namespace {

/// A replica that takes `at_once` choices and gives each a token per 10 ms.
struct served : test::simulated_replicas {
  std::vector<std::uint64_t> order; ///< requests, as they were begun

  void begin(std::uint32_t at_once) {
    choices_at_once = at_once;
    start(1);
  }

  submission of(const std::string& tenant, std::uint64_t request,
                std::uint32_t tokens, std::int32_t priority = 0) {
    auto what = ask(request, tokens);
    what.tenant = tenant;
    what.priority = priority;
    return what;
  }

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      advance(10ms);
      step_all();
    }
  }

  std::size_t begun_of(std::uint64_t from, std::uint64_t to) const {
    std::size_t out = 0;
    for (auto i = from; i < to; ++i)
      out += given.count({i, 0}) != 0 ? 1 : 0;
    return out;
  }
};

} // namespace

TEST_CASE_METHOD(served, "a replica is given what it computes at once and a "
                         "little more; the others wait in the router") {
  begin(8);
  for (std::uint64_t i = 1; i <= 40; ++i)
    submit(ask(i, 5));
  CHECK(table.choices_sent() == 9);
  CHECK(table.choices_waiting() == 31);
  run(60);
  for (std::uint64_t i = 1; i <= 40; ++i)
    CHECK(whole(i, 5));
}

TEST_CASE_METHOD(served, "while choices wait in a replica's engine it gets one "
                         "at a time") {
  begin(32);
  waiting_in_engine = 20; // of other routers
  submit(ask(1, 1000));
  step_all();
  for (std::uint64_t i = 2; i <= 9; ++i)
    submit(ask(i, 1000));
  CHECK(table.choices_sent() == 1);
  waiting_in_engine = 0;
  step_all();
  CHECK(table.choices_sent() == 9);
}

TEST_CASE_METHOD(served, "a flood of one tenant leaves another its share") {
  begin(8);
  for (std::uint64_t i = 1; i <= 300; ++i)
    submit(of("flood", i, 10));
  run(20);
  auto before = begun_of(1, 301);
  for (std::uint64_t i = 1001; i <= 1020; ++i)
    submit(of("quiet", i, 10));
  run(60);
  auto flood = begun_of(1, 301) - before;
  auto quiet = begun_of(1001, 1021);
  CHECK(quiet == 20);
  CHECK(flood >= 15);
}

TEST_CASE_METHOD(served, "the more urgent is begun first") {
  begin(1);
  for (std::uint64_t i = 1; i <= 20; ++i)
    submit(of("t", i, 10));
  submit(of("t", 100, 10, -1));
  run(20 + 10);
  CHECK(begun_of(100, 101) == 1);
  CHECK(begun_of(1, 21) < 6);
}

TEST_CASE_METHOD(served, "what cannot be served in time is refused, and only "
                         "that") {
  begin(8);
  for (std::uint64_t i = 1; i <= 100; ++i)
    submit(ask(i, 50)); // half a second each
  run(250);             // now the rate is known: 9 x 100 tokens a second
  auto refused_before = failed.size();
  CHECK(refused_before == 0);
  auto waiting = table.choices_waiting();
  REQUIRE(waiting > 20);

  auto hurried = ask(1001, 50);
  hurried.time_limit = 1s;
  hurried.has_limit = true;
  submit(hurried);
  REQUIRE(failed.count(1001) == 1);
  CHECK(failed[1001].code == errc::unavailable);
  CHECK(failed[1001].message.find("time limit of 1.0 s") != std::string::npos);
  CHECK(retry_after[1001] >= 1);
  CHECK(table.counts().requests_late == 1);
  CHECK(table.choices_waiting() == waiting);

  auto patient = ask(1002, 50);
  patient.time_limit = 60s;
  submit(patient);
  CHECK(failed.count(1002) == 0);
  // One that has the queue's front is in time after all.
  auto urgent = ask(1003, 50);
  urgent.time_limit = 2s;
  urgent.has_limit = true;
  urgent.priority = -1;
  submit(urgent);
  CHECK(failed.count(1003) == 0);
  run(600);
  CHECK(whole(1002, 50));
  CHECK(whole(1003, 50));
}

TEST_CASE_METHOD(served, "after an overload nobody is refused for how slow it "
                         "was then") {
  begin(8);
  for (std::uint64_t i = 1; i <= 60; ++i)
    submit(ask(i, 20));
  for (int i = 0; i < 300; ++i) { // slow: so many at once
    advance(200ms);
    step_all();
  }
  REQUIRE(table.choices_sent() == 0);
  auto quick = ask(100, 20); // 4 s among others
  quick.time_limit = 2s;
  quick.has_limit = true;
  submit(quick);
  CHECK(failed.empty());
  run(25);
  CHECK(whole(100, 20));
}

TEST_CASE_METHOD(served, "who has waited past its time leaves the queue before "
                         "work is done on it") {
  begin(1);
  for (std::uint64_t i = 1; i <= 2; ++i) // both at the replica
    submit(ask(i, 500));
  for (std::uint64_t i = 11; i <= 15; ++i) {
    auto what = ask(i, 5);
    what.time_limit = std::chrono::milliseconds{100 * i};
    submit(what);
  }
  CHECK(failed.empty());
  run(115);
  CHECK(failed.count(11) == 1);
  CHECK(failed.count(12) == 0);
  run(50);
  CHECK(failed.size() == 5);
  CHECK(given.count({11, 0}) == 0);
  CHECK(table.counts().requests_expired == 5);
  CHECK(table.choices_waiting() == 0);
  run(900);
  CHECK(whole(1, 500));
  CHECK(whole(2, 500));
}

TEST_CASE_METHOD(served, "who waits for room waits on, past the time for which "
                         "one waits for a replica") {
  begin(1);
  submit(ask(1, 6000));
  submit(ask(2, 6000));
  submit(ask(3, 5));
  run(4500); // 45 s
  CHECK(failed.empty());
  CHECK(table.choices_waiting() == 1);
  run(2000);
  CHECK(whole(3, 5));
}

TEST_CASE_METHOD(served, "with the queues of other routers the model's is as "
                         "long as it may be") {
  begin(1);
  protocol::others_load others;
  others.models.push_back({"app", "m", 1020, 0});
  table.heed(others, now);
  for (std::uint64_t i = 1; i <= 8; ++i)
    submit(ask(i, 5));
  CHECK(table.choices_waiting() == 4);
  CHECK(failed.size() == 2);
  // Nobody has said so for a while: the head is gone.
  advance(3s);
  submit(ask(20, 5));
  CHECK(failed.count(20) == 0);
}

TEST_CASE_METHOD(served,
                 "what is begun is not cut for a limit that nobody set") {
  begin(1);
  submit(ask(1, 70'000, 4)); // one after the other, longer than 600 s
  run(65'000);
  CHECK(failed.empty());
  CHECK(table.choices_waiting() == 2);
}

TEST_CASE_METHOD(served,
                 "choices that are to be sent again hold up no others") {
  begin(0);
  for (std::uint64_t i = 1; i <= 500; ++i)
    submit(ask(i, 5));
  refuse_all(); // the budget is used up by some of them
  CHECK(table.choices_waiting() > 200);
  advance(1s);
  auto sent = table.choices_sent();
  submit(ask(1000, 5));
  CHECK(table.choices_sent() == sent + 1);
}

TEST_CASE_METHOD(served, "one tenant does not fill the queue alone") {
  begin(1);
  for (std::uint64_t i = 1; i <= 1100; ++i)
    submit(of("flood", i, 5));
  CHECK(table.choices_waiting() == 820);
  submit(of("quiet", 2000, 5));
  CHECK(failed.count(2000) == 0);
}

TEST_CASE_METHOD(served, "what a tenant has in other routers counts too") {
  begin(1);
  protocol::others_load others;
  others.models.push_back({"app", "m", 600, 0});
  others.models[0].tenants = {{"flood", 500}, {"other", 100}};
  table.heed(others, now);
  for (std::uint64_t i = 1; i <= 500; ++i)
    submit(of("flood", i, 5));
  // It has 4 times as many as are free: 740 of 1024, and 100 are another's.
  CHECK(table.choices_waiting() == 240);
  for (std::uint64_t i = 1001; i <= 1100; ++i)
    submit(of("quiet", i, 5));
  CHECK(failed.lower_bound(1001) == failed.end());
  // Nobody has said so for a while: the head is gone.
  advance(3s);
  submit(of("flood", 2000, 5));
  CHECK(failed.count(2000) == 0);
  // It has nothing there any more.
  table.heed({}, now);
  submit(of("flood", 2001, 5));
  CHECK(failed.count(2001) == 0);
}

TEST_CASE_METHOD(served, "a tenant has as many choices at a replica as it may "
                         "have there, and others go past it") {
  begin(8);
  auto limited = [&](std::uint64_t i, std::int32_t priority = 0) {
    auto what = of("flood", i, 500, priority);
    what.choices_per_replica = 3;
    submit(what);
  };
  for (std::uint64_t i = 1; i <= 20; ++i)
    limited(i, -5);
  CHECK(table.choices_sent() == 3);
  CHECK(table.choices_waiting() == 17);
  submit(of("quiet", 100, 5));
  submit(of("quiet", 101, 5));
  CHECK(table.choices_sent() == 5);
  CHECK(failed.empty());
  run(10);
  CHECK(whole(100, 5));
  CHECK(whole(101, 5));
  CHECK(table.choices_sent() == 3);
  start(2); // another replica has as many
  CHECK(table.choices_sent() == 6);
  run(6000);
  for (std::uint64_t i = 1; i <= 20; ++i)
    CHECK(whole(i, 500));
}

TEST_CASE_METHOD(served, "streams that have begun go on past their tenant's "
                         "limit") {
  begin(8);
  start(2);
  for (std::uint64_t i = 1; i <= 6; ++i) {
    auto what = of("flood", i, 500);
    what.choices_per_replica = 3;
    submit(what);
  }
  run(5);
  CHECK(table.choices_sent() == 6);
  kill(2);
  notice(2);
  run(5);
  CHECK(table.choices_sent() == 6);
  run(6000);
  for (std::uint64_t i = 1; i <= 6; ++i)
    CHECK(whole(i, 500));
}

TEST_CASE_METHOD(served, "a part of each router's queue is for tenants that "
                         "have little in it, however long the others' are") {
  queue_max = 60;
  begin(1);
  protocol::others_load others;
  others.models.push_back({"app", "m", 70, 0});
  others.models[0].tenants = {{"flood", 66}, {"quiet", 4}};
  table.heed(others, now);
  for (std::uint64_t i = 1; i <= 60; ++i)
    submit(of("flood", i, 5));
  CHECK(table.choices_waiting() == 7); // half of a quarter, as anybody
  for (std::uint64_t i = 100; i < 110; ++i)
    submit(of("quiet", i, 5));
  CHECK(table.choices_waiting() == 14);
  submit(of("third", 200, 5)); // 15: the quarter is full
  submit(of("fourth", 201, 5));
  CHECK(failed.count(200) == 0);
  CHECK(failed.count(201) == 1);
}

TEST_CASE_METHOD(served, "a router tells whose choices wait, those who have "
                         "most first, and not of all") {
  begin(1);
  submit(of("first", 1, 5)); // at the replica, as is the next one
  submit(ask(2, 5));
  std::uint64_t next = 3;
  submit(ask(next++, 5)); // nobody's
  for (int i = 0; i < 70; ++i)
    submit(of("t" + std::to_string(100 + i), next++, 5));
  for (auto priority : {-1, 0, 1})
    submit(of("loud", next++, 5, priority));
  auto load = table.load(now);
  REQUIRE(load.size() == 1);
  CHECK(load[0].waiting == 74);
  const auto& tenants = load[0].tenants;
  REQUIRE(tenants.size() == protocol::tenants_waiting_max);
  CHECK(tenants[0] == protocol::tenant_waiting{"loud", 3});
  CHECK(tenants[1] == protocol::tenant_waiting{"t100", 1});
}

TEST_CASE_METHOD(served, "choices that replicas keep refusing are sent again "
                         "no oftener than the budget allows") {
  begin(0);
  for (std::uint64_t i = 2; i <= 4; ++i)
    start(i);
  std::size_t sent = 0;
  for (std::uint64_t i = 1; i <= 200; ++i)
    submit(ask(i, 5));
  for (int i = 0; i < 300; ++i) { // 3 s
    advance(10ms);
    refuse_all();
  }
  sent = refused;
  // 200 first sendings, 40 repetitions for them, 256 saved, 32 a second.
  CHECK(sent <= 200 + 40 + 256 + 97);
  CHECK(table.counts().retries_put_off > 0);
  for (int i = 0; i < 2500; ++i) {
    advance(10ms);
    step_all();
  }
  for (std::uint64_t i = 1; i <= 200; ++i)
    CHECK((whole(i, 5) || failed.count(i) == 1));
}

TEST_CASE_METHOD(served, "shares are right again after any end of choices") {
  begin(4);
  std::mt19937 random{9};
  std::uint64_t next = 1;
  for (int round = 0; round < 300; ++round) {
    for (int i = 0; i < 3; ++i)
      submit(of(std::string(1, static_cast<char>('a' + random() % 3)), next++,
                1 + random() % 8, static_cast<int>(random() % 3) - 1));
    if (random() % 3 == 0)
      obey(table.cancel_request(1 + random() % next, now));
    if (random() % 40 == 0)
      cut(1);
    run(2);
  }
  run(2000);
  CHECK(table.requests() == 0);
  CHECK(table.choices_waiting() == 0);
  CHECK(table.choices_sent() == 0);
}
