#include "router/policy/choice_rate.hpp"
#include "router/policy/lowest_cost.hpp"
#include "router/policy/power_of_two.hpp"
#include "router/policy/replica_health.hpp"
#include "router/policy/replica_pace.hpp"
#include "router/policy/round_robin.hpp"
#include "router/policy/session_affinity.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

using namespace troupe::router;
using namespace std::chrono_literals;

namespace {

using time_point = choice_rate::time_point;
using replica_list = std::vector<replica_snapshot>;

replica_list replicas(std::size_t count) {
  replica_list out(count);
  for (std::size_t i = 0; i < count; ++i) {
    out[i].incarnation = 100 + i;
    out[i].name_hash = mixed(i + 1);
  }
  return out;
}

} // namespace

TEST_CASE("a slow replica is drawn only when the others have more work") {
  auto two = replicas(2);
  two[0].slowness = 4;
  std::mt19937_64 random{6};
  for (int i = 0; i < 50; ++i)
    CHECK(power_of_two(two, random(), 100) == 1u);
  two[1].tokens = 1000;
  for (int i = 0; i < 50; ++i)
    CHECK(power_of_two(two, random(), 100) == 0u);
}

TEST_CASE("round robin goes through all replicas in turn, whoever comes or "
          "goes") {
  auto some = replicas(4);
  std::uint64_t last = 0;
  std::vector<std::uint64_t> seen;
  for (int i = 0; i < 8; ++i) {
    last = some[*round_robin(some, last)].incarnation;
    seen.push_back(last);
  }
  CHECK(seen ==
        std::vector<std::uint64_t>{100, 101, 102, 103, 100, 101, 102, 103});
  some.erase(some.begin()); // 100 is gone
  CHECK(some[*round_robin(some, 103)].incarnation == 101);
  some[0].choices_max = some[0].choices = 1; // 101 is full
  CHECK(some[*round_robin(some, 103)].incarnation == 102);
  CHECK(!round_robin({}, 7));
}

TEST_CASE("sessions spread evenly and stay where they are") {
  auto some = replicas(8);
  std::map<std::size_t, int> drawn;
  std::map<std::uint64_t, std::size_t> home;
  for (std::uint64_t session = 1; session <= 8000; ++session) {
    home[session] = *session_affinity(some, session);
    CHECK(session_affinity(some, session) == home[session]);
    ++drawn[home[session]];
  }
  for (auto [replica, count] : drawn)
    CHECK((count > 850 && count < 1150));

  SECTION("a replica that leaves moves its own sessions alone") {
    auto fewer = some;
    fewer.erase(fewer.begin() + 3);
    for (auto [session, place] : home) {
      auto now = fewer[*session_affinity(fewer, session)].incarnation;
      if (place == 3)
        CHECK(now != some[3].incarnation);
      else
        CHECK(now == some[place].incarnation);
    }
  }

  SECTION("a new process of the same name has them again") {
    some[3].incarnation = 999;
    for (auto [session, place] : home)
      CHECK(session_affinity(some, session) == place);
  }
}

TEST_CASE("one session's flood goes on to others past its replica's share") {
  auto some = replicas(4);
  std::map<std::size_t, int> given;
  for (int i = 0; i < 400; ++i) {
    auto place = *session_affinity(some, 17);
    ++given[place];
    ++some[place].choices;
  }
  std::vector<int> counts;
  for (auto [place, count] : given)
    counts.push_back(count);
  // Its own has at most a quarter more than its share.
  CHECK(*std::max_element(counts.begin(), counts.end()) <= 126);
  CHECK(given.size() == 4);
}

TEST_CASE("a session whose replica is full goes to one with room, and nowhere "
          "if there is none") {
  auto some = replicas(3);
  auto home = *session_affinity(some, 5);
  some[home].choices_max = some[home].choices = 2;
  CHECK(session_affinity(some, 5) != home);
  for (auto& one : some)
    one.choices_max = one.choices = 2;
  CHECK(!session_affinity(some, 5));
  for (auto& one : some)
    one.choices = 100, one.choices_max = 0;
  CHECK(session_affinity(some, 5) == home); // all have as much
}

TEST_CASE("the lowest cost: what is cached against what waits") {
  struct row {
    std::uint64_t tokens[2];
    double slowness[2];
    std::uint64_t cached[2];
    std::size_t expected;
  };
  // A thousand tokens; what is to be computed counts three times.
  auto table = std::vector<row>{
      {{0, 0}, {1, 1}, {0, 500}, 1},       // a match decides
      {{0, 1400}, {1, 1}, {0, 500}, 1},    // 1500 + 1400 against 3000
      {{0, 1600}, {1, 1}, {0, 500}, 0},    // but not always
      {{0, 0}, {1, 4}, {0, 500}, 0},       // 3000 here, 1500 x 4 there
      {{0, 0}, {1, 1}, {2000, 500}, 0},    // more than the prompt has
      {{300, 0}, {1, 1}, {0, 0}, 1},       // no match: the emptier
      {{300, 600}, {1, 1}, {200, 299}, 0}, // 2700 against 2703
      {{1, 0}, {1, 1}, {49, 0}, 1},        // too little to be a match
      {{1, 0}, {1, 1}, {50, 0}, 0},        // just enough
  };
  for (auto& one : table) {
    auto some = replicas(2);
    std::vector<cached_prefix> cached(2);
    for (int i = 0; i < 2; ++i) {
      some[i].tokens = one.tokens[i];
      some[i].slowness = one.slowness[i];
      cached[i].tokens = one.cached[i];
    }
    for (std::uint64_t random : {0, 1})
      CHECK(lowest_cost(some, cached, 1000, 50, random) == one.expected);
  }
}

TEST_CASE("with equal costs the one with the fewest blocks comes first, then "
          "chance") {
  auto some = replicas(3);
  std::vector<cached_prefix> cached{{0, 9}, {0, 4}, {0, 9}};
  CHECK(lowest_cost(some, cached, 10, 0, 0) == 1u);
  cached[1].blocks = 9;
  std::set<std::size_t> drawn;
  for (std::uint64_t random = 0; random < 3; ++random)
    drawn.insert(*lowest_cost(some, cached, 10, 0, random));
  CHECK(drawn.size() == 3);
  for (auto& one : some)
    one.choices_max = one.choices = 1;
  CHECK(!lowest_cost(some, cached, 10, 0, 0));
}

TEST_CASE("a rate is work per second of a choice, whatever the number of "
          "choices") {
  time_point now{100s};
  choice_rate one;
  CHECK(!one.value(now));
  // Four choices for two seconds, 20 tokens per second each.
  for (int step = 0; step < 40; ++step) {
    now += 50ms;
    for (int choice = 0; choice < 4; ++choice)
      one.note(1, 50ms, now);
  }
  REQUIRE(one.value(now));
  CHECK(*one.value(now) == Approx(20));

  SECTION("a change shows within seconds") {
    for (int step = 0; step < 100; ++step) {
      now += 200ms;
      one.note(1, 200ms, now);
    }
    CHECK(*one.value(now) < 10);
  }
  SECTION("it is forgotten without work") {
    CHECK(one.value(now + 30s));
    CHECK(!one.value(now + 31s));
  }
  SECTION("time that does not pass says nothing") {
    choice_rate still;
    for (int i = 0; i < 100; ++i)
      still.note(1, 0s, now);
    CHECK(!still.value(now));
  }
}

TEST_CASE("slowness is against the fastest, without noise and bounded") {
  auto of = [](std::uint32_t few, std::uint32_t fastest) {
    return slowness_of({few, 0}, {fastest, 0});
  };
  CHECK(of(0, 50) == 1);
  CHECK(of(50, 0) == 1);
  CHECK(of(50, 50) == 1);
  CHECK(of(149, 50) == 1);
  CHECK(of(200, 50) == 4);
  CHECK(of(5000, 50) == 8);
  // The worse of both sizes; steps of one size say nothing about the other.
  CHECK(slowness_of({50, 700}, {50, 100}) == 7);
  CHECK(slowness_of({200, 100}, {50, 100}) == 4);
  CHECK(slowness_of({0, 900}, {50, 0}) == 1);
  auto fastest = fastest_of({50, 0}, {70, 900});
  CHECK(fastest.few_us == 50);
  CHECK(fastest.many_us == 900);
  CHECK(work_of(800, 20) == 120);
}

TEST_CASE("a pace is what was told last, for half a minute") {
  time_point now{100s};
  replica_pace one;
  CHECK(one.value(now).few_us == 0);
  one.told({700, 9000}, now);
  one.told({0, 0}, now + 1s); // says nothing
  CHECK(one.value(now + 30s).few_us == 700);
  CHECK(one.value(now + 30s).many_us == 9000);
  CHECK(one.value(now + 31s).few_us == 0);
}

TEST_CASE("a replica is left out after two failures in a row, and comes back "
          "by one choice") {
  using state = replica_health::state;
  time_point now{100s};
  replica_health one;
  one.failed(now);
  CHECK(one.now() == state::fine);
  one.served();
  one.failed(now);
  CHECK(one.now() == state::fine);
  CHECK(!one.next());
  one.failed(now);
  CHECK(one.now() == state::left_out);
  CHECK(one.next() == now + 1s);
  one.tick(now + 999ms);
  CHECK(one.now() == state::left_out);
  one.tick(now + 1s);
  CHECK(one.now() == state::probed);
  CHECK(!one.next());

  SECTION("a probe that fails doubles the pause, up to a bound") {
    std::vector<std::chrono::milliseconds> pauses;
    for (int i = 0; i < 7; ++i) {
      one.failed(now);
      REQUIRE(one.next());
      pauses.push_back(std::chrono::duration_cast<std::chrono::milliseconds>(
          *one.next() - now));
      now = *one.next();
      one.tick(now);
    }
    CHECK(pauses == std::vector<std::chrono::milliseconds>{2s, 4s, 8s, 16s, 30s,
                                                           30s, 30s});
  }
  SECTION("failures while it is left out change nothing") {
    one.failed(now);
    auto until = one.next();
    one.failed(now + 1s);
    CHECK(one.next() == until);
  }
  SECTION("a probe that gives a token ends it") {
    one.served();
    CHECK(one.now() == state::fine);
    one.failed(now);
    CHECK(one.now() == state::fine);
  }
}
