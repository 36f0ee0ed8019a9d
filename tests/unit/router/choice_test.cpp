#include "tests/unit/router/simulated_replicas.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <numeric>
#include <set>

using namespace troupe;
using namespace troupe::router;
using namespace std::chrono_literals;
using protocol::choice_policy;
using protocol::finish;

namespace {

/// A table whose model is chosen for by one policy, and what it sends where.
struct bench {
  request_table table{{}, 42, 4711};
  time_point now{1'000'000s};
  protocol::choice_rule rule;
  std::map<std::uint64_t, std::uint32_t> room; // by incarnation; 0 = no bound
  std::uint64_t version = 0;
  std::uint64_t requests = 0;
  std::map<std::uint64_t, std::pair<std::uint64_t, std::uint64_t>>
      places; // request -> incarnation, record id
  std::set<std::uint64_t> followed;
  std::map<std::uint64_t, std::uint32_t> step_us; // that replicas tell
  std::vector<command::measured_hits> hits;
  std::size_t failed = 0;

  explicit bench(choice_policy policy, std::uint64_t replicas = 3) {
    rule.policy = policy;
    for (std::uint64_t i = 1; i <= replicas; ++i)
      room[i] = 0;
    publish();
  }

  void publish() {
    protocol::model_route model;
    model.application = "app";
    model.model = "m";
    model.choice = rule;
    for (auto [incarnation, most] : room) {
      protocol::replica_route one;
      one.replica = "m#" + std::to_string(incarnation);
      one.where = {"127.0.0.1", 1, 2, incarnation};
      one.max_ongoing_requests = most;
      one.version = protocol::protocol_version;
      model.replicas.push_back(one);
    }
    obey(table.route_by({++version, {model}, {}}, now));
  }

  void obey(const command_list& commands) {
    for (auto& one : commands) {
      if (auto* attach = std::get_if<command::attach>(&one))
        obey(table.attached(attach->where.incarnation, now));
      if (auto* generate = std::get_if<command::generate>(&one))
        places[std::stoull(generate->record.request_id)] = {
            generate->incarnation, generate->record.id};
      if (auto* follow = std::get_if<command::follow_blocks>(&one)) {
        if (follow->follow)
          followed.insert(follow->incarnation);
        else
          followed.erase(follow->incarnation);
      }
      if (auto* measured = std::get_if<command::measured_hits>(&one))
        hits.push_back(*measured);
      failed += std::holds_alternative<command::fail>(one);
    }
  }

  /// Returns the request's number.
  std::uint64_t ask(std::vector<token_id> prompt, std::string session = {}) {
    submission what{++requests, "app", "m", {}, {}, std::move(session)};
    protocol::request_record record;
    record.request_id = std::to_string(requests);
    record.prompt = std::move(prompt);
    record.params.max_tokens = 64;
    what.choices.push_back(record);
    obey(table.submit(std::move(what), now));
    return requests;
  }

  std::uint64_t home(std::uint64_t request) const {
    auto known = places.find(request);
    return known == places.end() ? 0 : known->second.first;
  }

  void tell(std::uint64_t request, finish reason, std::uint32_t cached = 0,
            errc code = errc::internal) {
    auto [incarnation, id] = places.at(request);
    protocol::token_batch batch;
    batch.incarnation = incarnation;
    batch.few_rows_us = step_us[incarnation];
    protocol::choice_tokens news;
    news.id = id;
    if (reason != finish::error)
      news.tokens = {7};
    news.cached_tokens = cached;
    news.reason = reason;
    news.code = code;
    batch.choices = {news};
    obey(table.tokens(batch, now));
  }

  /// The replica tells of so much work that it has of others.
  void others(std::uint64_t incarnation, std::uint64_t tokens) {
    protocol::token_batch batch;
    batch.incarnation = incarnation;
    batch.others_tokens = tokens;
    obey(table.tokens(batch, now));
  }

  void events(std::uint64_t incarnation, protocol::kv_events what) {
    protocol::token_batch batch;
    batch.incarnation = incarnation;
    batch.blocks = std::move(what);
    obey(table.tokens(batch, now));
  }

  /// Asks, has it answered, says where it was.
  std::uint64_t serve(std::vector<token_id> prompt, std::string session = {}) {
    auto request = ask(std::move(prompt), std::move(session));
    tell(request, finish::stop);
    return home(request);
  }
};

std::vector<token_id> prompt(token_id first, std::size_t tokens = 100) {
  std::vector<token_id> out(tokens);
  std::iota(out.begin(), out.end(), first);
  return out;
}

} // namespace

TEST_CASE("round robin takes all replicas of a model in turn") {
  bench b{choice_policy::round_robin};
  std::vector<std::uint64_t> seen;
  for (int i = 0; i < 6; ++i)
    seen.push_back(b.serve(prompt(i)));
  CHECK(seen == std::vector<std::uint64_t>{1, 2, 3, 1, 2, 3});
}

TEST_CASE("what other routers have at a replica counts") {
  auto policy = GENERATE(choice_policy::power_of_two, choice_policy::prefix,
                         choice_policy::kv_aware);
  bench b{policy, 2};
  b.others(1, 5000);
  std::map<std::uint64_t, int> homes;
  for (int i = 0; i < 4; ++i)
    ++homes[b.home(b.ask(prompt(i * 1000)))];
  CHECK(homes == std::map<std::uint64_t, int>{{2, 4}});
  // It is done; now the other one has more.
  b.others(1, 0);
  CHECK(b.home(b.ask(prompt(9000))) == 1);
  SECTION("but not of a session that was lost") {
    b.others(1, 50'000);
    b.obey(b.table.lost(1, b.now));
    b.now += 10s;
    b.obey(b.table.tick(b.now));
    CHECK(b.home(b.ask(prompt(10'000))) == 1);
  }
}

TEST_CASE("a session stays at its replica, choices without one do not") {
  bench b{choice_policy::session, 4};
  std::set<std::uint64_t> homes;
  for (int session = 0; session < 20; ++session) {
    auto name = "user-" + std::to_string(session);
    auto home = b.serve(prompt(session), name);
    homes.insert(home);
    for (int turn = 0; turn < 5; ++turn)
      CHECK(b.serve(prompt(session + turn), name) == home);
  }
  CHECK(homes.size() == 4);
  std::set<std::uint64_t> without;
  for (int i = 0; i < 40; ++i)
    without.insert(b.serve(prompt(i)));
  CHECK(without.size() == 4);
}

TEST_CASE("prompts go where their beginning went") {
  bench b{choice_policy::prefix, 4};
  std::map<token_id, std::uint64_t> home;
  for (token_id i = 0; i < 8; ++i)
    home[i] = b.serve(prompt(i * 1000));
  std::set<std::uint64_t> homes;
  for (auto [i, where] : home) {
    homes.insert(where);
    CHECK(b.serve(prompt(i * 1000, 150)) == where);
  }
  CHECK(homes.size() == 4);
  // Hits are predicted from the second time on.
  REQUIRE(b.hits.size() == 16);
  CHECK(b.hits.front().predicted == 0);
  CHECK(b.hits.back().predicted == 96);
}

TEST_CASE("a choice never waits for its favourite replica while another has "
          "room") {
  auto policy = GENERATE(choice_policy::power_of_two,
                         choice_policy::round_robin, choice_policy::session,
                         choice_policy::prefix, choice_policy::kv_aware);
  bench b{policy, 3};
  for (auto& [incarnation, most] : b.room)
    most = 2;
  b.publish();
  for (int i = 0; i < 6; ++i) // one prompt, one session
    CHECK(b.home(b.ask(prompt(0), "s")) != 0);
  auto seventh = b.ask(prompt(0), "s");
  auto eighth = b.ask(prompt(9000), "other");
  CHECK(b.home(seventh) == 0);
  CHECK(b.home(eighth) == 0);
  // The oldest goes first, wherever there is room.
  b.tell(4, finish::stop);
  CHECK(b.home(seventh) == b.home(4));
  CHECK(b.home(eighth) == 0);
}

TEST_CASE("kv_aware follows what replicas tell") {
  bench b{choice_policy::kv_aware};
  CHECK(b.followed == std::set<std::uint64_t>{1, 2, 3});
  auto names = codec::block_names(prompt(0), 16);
  for (std::uint64_t i = 1; i <= 3; ++i)
    b.events(i, {1, true, 16, i == 2 ? names : decltype(names){}, {}});
  for (int i = 0; i < 5; ++i) {
    auto request = b.ask(prompt(0));
    CHECK(b.home(request) == 2);
    b.tell(request, finish::stop, 96);
  }
  REQUIRE(b.hits.size() == 5);
  CHECK(b.hits[0].predicted == 96);
  CHECK(b.hits[0].reported == 96);
  CHECK(b.hits[0].incarnation == 2);

  SECTION("a gap makes it ask again") {
    b.followed.clear();
    b.now += 10s;
    b.events(2, {3, false, 16, {}, {names[0]}});
    CHECK(b.followed == std::set<std::uint64_t>{2});
    b.events(2, {4, true, 16, {names[0]}, {}});
    auto request = b.ask(prompt(0));
    b.tell(request, finish::stop, 16);
    CHECK(b.hits.back().predicted == 16);
  }
  SECTION("so does a new session, and nothing is known until then") {
    b.followed.clear();
    b.obey(b.table.lost(2, b.now));
    b.now += 1s;
    b.obey(b.table.tick(b.now));
    CHECK(b.followed == std::set<std::uint64_t>{2});
    b.tell(b.ask(prompt(0)), finish::stop);
    CHECK(b.hits.back().predicted == 0);
  }
  SECTION("another policy is told no more") {
    b.rule.policy = choice_policy::round_robin;
    b.publish();
    CHECK(b.followed.empty());
    b.rule.policy = choice_policy::kv_aware;
    b.publish();
    CHECK(b.followed == std::set<std::uint64_t>{1, 2, 3});
  }
}

TEST_CASE("an old replica is not asked for its blocks") {
  request_table table{{}, 42, 4711};
  time_point now{1'000'000s};
  protocol::replica_route old;
  old.where.incarnation = 7;
  old.version = 4;
  protocol::model_route model;
  model.replicas = {old};
  model.choice.policy = choice_policy::kv_aware;
  table.route_by({1, {model}, {}}, now);
  CHECK(table.attached(7, now).empty());
}

TEST_CASE("a replica that is slow gets less") {
  bench b{choice_policy::power_of_two, 2};
  // The first takes four times as long for a token, and says so. By work alone
  // both would have as many at a time, and it a fifth of all.
  b.step_us = {{1, 4000}, {2, 1000}};
  std::map<std::uint64_t, int> given;
  std::map<std::uint64_t, std::pair<std::uint64_t, int>> open; // tokens left
  for (int step = 0; step < 3000; ++step) {
    b.now += 10ms;
    auto request = b.ask(prompt(step * 1000, 20));
    open[request] = {b.home(request), 8};
    if (step >= 1000)
      ++given[b.home(request)];
    std::vector<std::uint64_t> ended;
    for (auto& [request, state] : open) {
      if (state.first == 1 && step % 4 != 0)
        continue;
      auto last = --state.second == 0;
      b.tell(request, last ? finish::stop : finish::none);
      if (last)
        ended.push_back(request);
    }
    for (auto request : ended)
      open.erase(request);
  }
  CHECK(given[1] > 0);
  CHECK(given[2] > 8 * given[1]);
}

TEST_CASE("a replica that could not be reached for long is tried as soon as it "
          "can be") {
  bench b{choice_policy::round_robin, 2};
  b.obey(b.table.lost(1, b.now));
  for (int i = 0; i < 10; ++i) {
    b.now += 5s;
    b.table.tick(b.now);
    b.obey(b.table.attach_failed(1, b.now));
  }
  b.now += 5s;
  b.table.tick(b.now);
  CHECK(b.home(b.ask(prompt(1))) == 2);
  b.obey(b.table.attached(1, b.now));
  CHECK(b.home(b.ask(prompt(1))) == 1);
  CHECK(b.home(b.ask(prompt(1))) == 2); // one choice until it gives a token
}

TEST_CASE("a replica that fails twice in a row is left out, and tried with one "
          "choice at a time") {
  bench b{choice_policy::round_robin, 2};
  auto refuse = [&](std::uint64_t request) {
    b.tell(request, finish::error, 0, errc::unavailable);
  };
  auto until_at = [&](std::uint64_t incarnation) {
    for (;;)
      if (auto request = b.ask(prompt(1)); b.home(request) == incarnation)
        return request;
  };
  refuse(until_at(1));
  b.now += 1s;
  b.obey(b.table.tick(b.now));
  refuse(until_at(1)); // twice in a row
  b.now += 999ms;
  b.obey(b.table.tick(b.now));
  for (int i = 0; i < 10; ++i)
    CHECK(b.home(b.ask(prompt(1))) == 2);
  b.now += 1ms;
  b.obey(b.table.tick(b.now));
  auto probe = b.ask(prompt(1));
  CHECK(b.home(probe) == 1);
  for (int i = 0; i < 10; ++i)
    CHECK(b.home(b.ask(prompt(1))) == 2);

  SECTION("a probe that fails moves, and the pause doubles") {
    refuse(probe);
    CHECK(b.home(probe) == 2);
    REQUIRE(b.table.next_deadline());
    b.now += 1999ms;
    b.obey(b.table.tick(b.now));
    CHECK(b.home(b.ask(prompt(1))) == 2);
    b.now += 1ms;
    b.obey(b.table.tick(b.now));
    CHECK(b.home(b.ask(prompt(1))) == 1);
  }
  SECTION("a probe that gives a token ends it") {
    b.tell(probe, finish::none);
    std::set<std::uint64_t> homes;
    for (int i = 0; i < 4; ++i)
      homes.insert(b.home(b.ask(prompt(1))));
    CHECK(homes.size() == 2);
  }
  SECTION("one whose client left makes room for the next") {
    b.obey(b.table.cancel_request(probe, b.now));
    CHECK(b.home(b.ask(prompt(1))) == 1);
  }
  SECTION("without any other it counts as before") {
    b.room.erase(2);
    b.publish();
    for (int i = 0; i < 3; ++i)
      CHECK(b.home(b.ask(prompt(1))) == 1);
  }
  CHECK(b.failed == 0);
}
