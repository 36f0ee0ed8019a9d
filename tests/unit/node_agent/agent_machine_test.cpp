#include "actors/node_agent/agent_machine.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <random>

using namespace troupe;
using namespace troupe::node_agent;
using namespace std::chrono_literals;
using protocol::replica_phase;

namespace {

protocol::node_joined this_node() {
  protocol::node_joined x;
  x.node = "w1";
  x.incarnation = 42;
  x.address = "127.0.0.1";
  return x;
}

protocol::replica_spec spec(const std::string& id = "m#1") {
  protocol::replica_spec x;
  x.replica = id;
  x.graceful_shutdown_timeout_ms = 1000;
  return x;
}

/// A machine with the head, the processes and the clock of a test.
struct bench {
  head_link_limits limits;
  agent_machine machine{this_node(), {}, limits, 1, {}};
  node_agent::clock::time_point now{};
  std::uint64_t sequence = 0;
  int connects = 0;
  int leaves = 0;
  std::vector<protocol::node_joined> registrations;
  std::vector<protocol::replica_news> news;
  std::vector<protocol::death_notice> deaths;
  std::vector<std::uint64_t> spawned;
  std::vector<protocol::replica_spec> tunes;
  std::vector<bool> router;
  std::vector<std::vector<protocol::revocation>> revoked;
  std::size_t spawned_before_revoked = 0; ///< the last time
  int signals = 0;
  std::uint64_t signalled = 0; ///< the last one
  std::vector<protocol::rank_word> words;
  int all_stopped = 0;

  void run(agent_commands todo) {
    for (auto& x : todo)
      std::visit([this](auto& y) { take(y); }, x);
  }

  void take(connect_head&) {
    ++connects;
  }
  void take(leave_head&) {
    ++leaves;
  }
  void take(register_node& x) {
    registrations.push_back(x.node);
  }
  void take(send_news& x) {
    news.push_back(x.news);
  }
  void take(send_death& x) {
    deaths.push_back(x.notice);
  }
  void take(spawn_process& x) {
    spawned.push_back(x.incarnation);
  }
  void take(tune_replica& x) {
    tunes.push_back(x.spec);
  }
  void take(want_router& x) {
    router.push_back(x.wanted);
  }
  void take(know_revoked& x) {
    revoked.push_back(x.all);
    spawned_before_revoked = spawned.size();
  }
  void take(signal_process& x) {
    ++signals;
    signalled = x.incarnation;
  }
  void take(send_rank_word& x) {
    words.push_back(x.word);
  }
  void take(drain_replica&) {
    // nop
  }
  void take(node_agent::all_stopped&) {
    ++all_stopped;
  }

  void advance(milliseconds duration) {
    for (auto end = now + duration; now < end;) {
      now += 50ms;
      run(machine.tick(now));
    }
  }

  void connect() {
    advance(limits.retry + 50ms);
    run(machine.head_connected(now));
  }

  void welcome(std::uint64_t head_epoch, std::uint64_t node_epoch) {
    run(machine.welcomed({true, "", head_epoch, node_epoch}, now));
  }

  void join(std::uint64_t head_epoch = 1, std::uint64_t node_epoch = 1) {
    connect();
    welcome(head_epoch, node_epoch);
    REQUIRE(machine.joined());
  }

  void assign(std::vector<protocol::replica_spec> specs,
              bool with_router = true,
              std::vector<protocol::revocation> revoked = {}) {
    run(machine.assigned({machine.head_epoch(), machine.node_epoch(),
                          ++sequence, std::move(specs), with_router,
                          std::move(revoked)},
                         now));
  }

  void say(replica_phase phase, const std::string& id = "m#1") {
    protocol::replica_report x;
    x.replica = id;
    x.incarnation = spawned.back();
    x.phase = phase;
    run(machine.report(x, now));
  }

  void end(process_end how,
           std::vector<std::pair<std::uint64_t, std::uint64_t>> running = {
               {7, 70}, {8, 80}}) {
    run(machine.ended(spawned.back(), how, running, now));
  }
};

} // namespace

TEST_CASE("the end of a part's processes is said to the replica's other ranks, "
          "and theirs ends a replica") {
  bench b;
  b.join();
  auto part = spec("m#2/1");
  part.ranks_on = {{"a", {0}}, {"b", {1}}};
  part.part = 1;
  part.leader = 77;
  b.assign({spec(), part});
  REQUIRE(b.spawned.size() == 2);
  CHECK(b.machine.spawned(b.spawned[1], 5).empty());
  b.connect();
  b.run(b.machine.head_lost(b.now));
  b.join(1, 2);
  REQUIRE(b.registrations.back().replicas.size() == 2);
  CHECK(b.registrations.back().replicas[1].spec == part);
  b.run(b.machine.ranks_ended(b.spawned[1], "no replica of its own", false));
  CHECK(b.signals == 0);
  b.run(b.machine.drain(10s, b.now));
  b.run(b.machine.ended(b.spawned[0], {}, {}, b.now));
  CHECK(b.all_stopped == 0);
  const auto how = GENERATE(SIGKILL, SIGSEGV);
  b.run(b.machine.ended(b.spawned[1], {0, how, {}}, {}, b.now));
  CHECK(b.all_stopped == 1);
  CHECK(b.deaths.size() == 1);
  REQUIRE(b.words.size() == 1);
  CHECK(b.words[0].replica == "m#2");
  CHECK(b.words[0].leader == 77);
  CHECK(b.words[0].key.empty());
  CHECK(b.words[0].word ==
        (how == SIGKILL ? "killed by SIGKILL" : "killed by SIGSEGV"));
  CHECK(b.words[0].own_fault == (how == SIGSEGV));
}

TEST_CASE("ranks that ended elsewhere end the replica, once") {
  bench b;
  b.join();
  b.assign({spec()});
  b.run(b.machine.ranks_ended(b.spawned[0], "ranks on w2 exited", false));
  b.run(b.machine.ranks_ended(b.spawned[0], "ranks on w2 exited", false));
  CHECK(b.signals == 1);
  CHECK(b.signalled == b.spawned[0]);
  b.end({0, SIGKILL, {}});
  CHECK(std::count_if(b.news.begin(), b.news.end(), [](const auto& one) {
          return one.report.reason == "ranks on w2 exited";
        }) == 1);
}

TEST_CASE(
    "of a replica whose ranks crashed elsewhere it is said that it died by "
    "its own fault, and at what") {
  bench b;
  b.join();
  auto wide = spec();
  wide.ranks_on = {{"w1", {0}}, {"w2", {1}}};
  const auto why = std::string{"ranks on w2 killed by SIGSEGV"};
  auto crash = [&] { b.run(b.machine.ranks_ended(b.spawned[0], why, true)); };
  auto check_blame = [&] {
    REQUIRE(b.deaths.size() == 1);
    CHECK(b.deaths[0].incarnation == b.spawned[0]);
    CHECK(b.deaths[0].own_fault);
    CHECK(b.deaths[0].reason == why);
    CHECK(b.deaths[0].running.size() == 2);
    CHECK(b.deaths[0].node_epoch == b.machine.node_epoch());
  };
  auto check_no_blame = [&] {
    REQUIRE(b.deaths.size() == 1);
    CHECK_FALSE(b.deaths[0].own_fault);
    CHECK(b.deaths[0].running.empty());
  };
  SECTION("it is ended for it") {
    b.assign({wide});
    crash();
    crash();
    CHECK(b.signals == 1);
    b.end({0, SIGKILL, {}});
    check_blame();
  }
  SECTION("it fails by itself, and the word comes a little later") {
    b.assign({wide});
    b.run(b.machine.ended(b.spawned[0], {1, 0, {}}, {{7, 70}, {8, 80}}, b.now));
    CHECK(b.deaths.empty());
    crash();
    check_blame();
    b.advance(1s);
    CHECK(b.deaths.size() == 1);
  }
  SECTION("it fails by itself, and nobody says why") {
    b.assign({wide});
    b.end({1, 0, {}});
    CHECK(b.deaths.empty());
    b.advance(300ms);
    check_no_blame();
  }
  SECTION("it fails by itself, and the word is that they ended otherwise") {
    b.assign({wide});
    b.end({1, 0, {}});
    CHECK(b.deaths.empty());
    b.run(b.machine.ranks_ended(b.spawned[0], "ranks on w2 exited", false));
    check_no_blame();
  }
  SECTION("it fails by itself after such a word") {
    b.assign({wide});
    b.run(b.machine.ranks_ended(b.spawned[0], "ranks on w2 exited", false));
    b.end({1, 0, {}});
    check_no_blame();
  }
  SECTION("one ended otherwise, then one crashed") {
    b.assign({wide});
    b.run(b.machine.ranks_ended(b.spawned[0], "ranks on w3 exited", false));
    crash();
    b.end({1, 0, {}});
    check_blame();
  }
  SECTION("they ended otherwise") {
    b.assign({wide});
    b.run(b.machine.ranks_ended(b.spawned[0], "ranks on w2 exited", false));
    b.end({0, SIGKILL, {}});
    check_no_blame();
  }
  SECTION("it has none elsewhere") {
    b.assign({spec()});
    b.end({1, 0, {}});
    check_no_blame();
  }
}

TEST_CASE("an agent registers what it is once the head is reached") {
  bench b;
  b.run(b.machine.tick(b.now));
  CHECK(b.connects == 1);
  b.run(b.machine.head_connected(b.now));
  REQUIRE(b.registrations.size() == 1);
  auto said = this_node();
  said.attempt = 1;
  CHECK(b.registrations[0] == said);
  CHECK_FALSE(b.machine.joined());
  b.welcome(3, 5);
  CHECK(b.machine.joined());
  CHECK(b.machine.head_epoch() == 3);
  CHECK(b.machine.node_epoch() == 5);
  b.advance(1min);
  CHECK(b.connects == 1);
  CHECK(b.leaves == 0);
}

TEST_CASE("an unreachable head is tried for ever, with pauses") {
  bench b;
  for (int i = 1; i <= 100; ++i) {
    b.advance(b.limits.retry);
    CHECK(b.connects == i);
    b.run(b.machine.head_unreachable(b.now));
  }
}

TEST_CASE("a registration without an answer is made again, from the start") {
  bench b;
  b.connect();
  b.advance(b.limits.answer_max);
  CHECK(b.leaves == 1);
  CHECK_FALSE(b.machine.joined());
  b.connect();
  CHECK(b.registrations.size() == 2);
}

TEST_CASE("a refused agent tries again") {
  bench b;
  b.connect();
  b.run(b.machine.welcomed({false, "an older life is not over", 1, 0}, b.now));
  CHECK_FALSE(b.machine.joined());
  CHECK(b.leaves == 1);
  b.join();
}

TEST_CASE("registrations are numbered, over all connections") {
  bench b;
  b.join(1, 1);
  b.run(b.machine.router_port(8000, b.now));
  b.welcome(1, 2);
  b.run(b.machine.head_lost(b.now));
  b.join(1, 3);
  REQUIRE(b.registrations.size() == 3);
  for (std::uint64_t i = 0; i < 3; ++i)
    CHECK(b.registrations[i].attempt == i + 1);
}

TEST_CASE("an older head is written to as one, until a newer one answers") {
  constexpr auto own = protocol::protocol_version;
  bench b;
  CHECK(b.machine.head_version() == own);
  b.connect();
  b.run(b.machine.welcomed({false, "unknown field"}, b.now));
  CHECK(b.machine.head_version() == own - 1);
  b.connect();
  b.run(b.machine.welcomed({true, "", 1, 1, own - 1}, b.now));
  CHECK(b.machine.head_version() == own - 1);
  b.run(b.machine.head_lost(b.now));
  b.connect();
  b.run(b.machine.welcomed({true, "", 2, 2, own}, b.now));
  CHECK(b.machine.head_version() == own);
  b.run(b.machine.welcomed({false, "a late one"}, b.now));
  CHECK(b.machine.head_version() == own);
}

TEST_CASE("a connection that comes too late is given up") {
  bench b;
  b.run(b.machine.head_connected(b.now));
  CHECK(b.leaves == 1);
  CHECK(b.registrations.empty());
}

TEST_CASE("an older head is not obeyed") {
  bench b;
  b.join(5, 9);
  b.run(b.machine.head_lost(b.now));
  b.connect();
  b.welcome(4, 10);
  CHECK_FALSE(b.machine.joined());
  CHECK(b.machine.head_epoch() == 5);
  b.join(6, 11);
  CHECK(b.machine.head_epoch() == 6);
}

TEST_CASE("of two welcomes the newer one counts, whatever their order") {
  bench b;
  b.join(1, 2);
  SECTION("the older one comes last") {
    b.welcome(1, 1);
    CHECK(b.machine.node_epoch() == 2);
    CHECK(b.machine.joined());
  }
  SECTION("the newer one comes last") {
    b.welcome(1, 3);
    CHECK(b.machine.node_epoch() == 3);
    CHECK(b.machine.joined());
  }
}

TEST_CASE("only assignments of the epochs and of a newer number are obeyed") {
  bench b;
  b.join(2, 2);
  auto assigned = [&](std::uint64_t head, std::uint64_t node,
                      std::uint64_t sequence, const std::string& id) {
    auto before = b.spawned.size();
    b.run(b.machine.assigned({head, node, sequence, {spec(id)}, true}, b.now));
    return b.spawned.size() != before;
  };
  CHECK_FALSE(assigned(1, 2, 1, "a"));
  CHECK_FALSE(assigned(3, 2, 1, "a"));
  CHECK_FALSE(assigned(2, 1, 1, "a"));
  CHECK_FALSE(assigned(2, 3, 1, "a"));
  CHECK(assigned(2, 2, 4, "a"));
  CHECK_FALSE(assigned(2, 2, 4, "b"));
  CHECK_FALSE(assigned(2, 2, 3, "b"));
  CHECK(assigned(2, 2, 5, "b"));
  // Numbers begin anew with every epoch.
  b.run(b.machine.head_lost(b.now));
  CHECK_FALSE(assigned(2, 2, 6, "c"));
  b.join(2, 3);
  CHECK(assigned(2, 3, 1, "c"));
}

TEST_CASE("an assignment that overtakes its welcome is not lost") {
  bench b;
  b.connect();
  b.run(b.machine.assigned({1, 1, 1, {spec()}, true}, b.now));
  CHECK(b.spawned.empty());
  SECTION("it is of the welcome") {
    b.welcome(1, 1);
    CHECK(b.spawned.size() == 1);
  }
  SECTION("it is of another one") {
    b.welcome(1, 2);
    CHECK(b.spawned.empty());
  }
  SECTION("it is of another connection") {
    b.run(b.machine.head_lost(b.now));
    b.connect();
    b.welcome(1, 1);
    CHECK(b.spawned.empty());
  }
}

TEST_CASE("news bear the node and its epoch") {
  bench b;
  b.join(1, 6);
  b.assign({spec()});
  REQUIRE(b.news.size() == 1);
  CHECK(b.news[0].node == "w1");
  CHECK(b.news[0].node_epoch == 6);
  CHECK(b.news[0].report.replica == "m#1");
  CHECK(b.news[0].report.node == "w1");
  CHECK(b.news[0].report.phase == replica_phase::starting);
}

TEST_CASE("what runs goes on without a head, and the next one hears of it") {
  bench b;
  b.join();
  b.assign({spec()});
  b.say(replica_phase::ready);
  b.run(b.machine.head_lost(b.now));
  CHECK(b.leaves == 1);
  b.news.clear();
  b.end({0, SIGKILL, ""});
  CHECK(b.spawned.size() == 2); // started again all the same
  b.say(replica_phase::ready);
  CHECK(b.news.empty());
  CHECK(b.deaths.size() == 1); // for the node's own router

  b.connect();
  const auto& told = b.registrations.back();
  CHECK(told.head_epoch == 1);
  REQUIRE(told.replicas.size() == 1);
  CHECK(told.replicas[0].spec == spec());
  CHECK(told.replicas[0].report.phase == replica_phase::ready);
  CHECK(told.replicas[0].report.incarnation == b.spawned.back());
  CHECK(told.replicas[0].report.node == "w1");
  // What happens before the answer is told after it.
  b.say(replica_phase::failed);
  CHECK(b.news.empty());
  b.welcome(2, 7);
  REQUIRE(b.news.size() == 1);
  CHECK(b.news[0].node_epoch == 7);
  CHECK(b.news[0].report.phase == replica_phase::failed);
  // Nothing is ended by a new head that says nothing.
  CHECK(b.signals == 0);
}

TEST_CASE("what ends while the head has not answered is said to have stopped") {
  bench b;
  b.join();
  b.assign({spec()});
  b.say(replica_phase::ready);
  b.assign({}); // it has to end
  b.run(b.machine.head_lost(b.now));
  b.connect();
  REQUIRE(b.registrations.back().replicas.size() == 1);
  b.news.clear();
  b.end({0, SIGTERM, ""});
  CHECK(b.machine.empty());
  CHECK(b.news.empty());
  // Also when another registration is on its way: what is said after the first
  // answer is not heard any more.
  for (const std::uint64_t epoch : {2, 3}) {
    b.welcome(1, epoch);
    REQUIRE(b.news.size() == 1);
    CHECK(b.news[0].node_epoch == epoch);
    CHECK(b.news[0].report.replica == "m#1");
    CHECK(b.news[0].report.phase == replica_phase::stopped);
    b.news.clear();
  }
  b.run(b.machine.head_lost(b.now));
  b.join(1, 4); // nobody was told of it this time
  CHECK(b.news.empty());
}

TEST_CASE("a replica that has failed for good is still told of") {
  bench b;
  b.join();
  auto x = spec();
  x.start_retries = 0;
  b.assign({x});
  b.end({1, 0, ""});
  CHECK(b.news.back().report.budget_spent);
  b.run(b.machine.head_lost(b.now));
  b.join(1, 2);
  REQUIRE(b.registrations.back().replicas.size() == 1);
  CHECK(b.registrations.back().replicas[0].report.budget_spent);
  CHECK(b.news.back().report.budget_spent);
  // The same assignment from the same head does not try again.
  b.assign({x});
  CHECK(b.spawned.size() == 1);
}

TEST_CASE("only what a process does to itself is its own fault") {
  bench b;
  b.join(1, 4);
  for (int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) {
    bench c;
    c.join(1, 4);
    c.assign({spec()});
    c.say(replica_phase::ready);
    auto incarnation = c.spawned.back();
    c.end({0, number, ""});
    REQUIRE(c.deaths.size() == 1);
    CHECK(c.deaths[0].own_fault);
    CHECK(c.deaths[0].running.size() == 2);
    CHECK(c.deaths[0].node == "w1");
    CHECK(c.deaths[0].node_epoch == 4);
    CHECK(c.deaths[0].replica == "m#1");
    CHECK(c.deaths[0].incarnation == incarnation);
    CHECK(c.deaths[0].reason.starts_with("killed by SIG"));
  }
  b.assign({spec()});
  SECTION("killed by somebody") {
    b.end({0, SIGKILL, ""});
  }
  SECTION("told to end") {
    b.end({0, SIGTERM, ""});
  }
  SECTION("gone by itself") {
    b.end({1, 0, ""});
  }
  REQUIRE(b.deaths.size() == 1);
  CHECK_FALSE(b.deaths[0].own_fault);
  CHECK(b.deaths[0].running.empty());
}

TEST_CASE("no notice of a process that never was, or is not known") {
  bench b;
  b.join();
  b.assign({spec()});
  auto first = b.spawned.back();
  b.end({0, 0, "No such file or directory"});
  CHECK(b.deaths.empty());
  b.run(b.machine.ended(first, {0, SIGSEGV, ""}, {}, b.now));
  CHECK(b.deaths.empty());
}

TEST_CASE("the router's port is told, at once where there is a head") {
  bench b;
  b.run(b.machine.router_port(8000, b.now));
  CHECK(b.registrations.empty());
  b.join();
  CHECK(b.registrations.back().http_port == 8000);
  b.run(b.machine.router_port(8000, b.now));
  CHECK(b.registrations.size() == 1);
  b.run(b.machine.router_port(0, b.now));
  REQUIRE(b.registrations.size() == 2);
  CHECK(b.registrations.back().http_port == 0);
  b.welcome(1, 2);
  CHECK(b.machine.joined());
}

TEST_CASE("the node's router is wanted or not as the head says") {
  bench b;
  b.join();
  CHECK(b.router.empty());
  b.assign({});
  b.assign({});
  CHECK(b.router == std::vector<bool>{true});
  b.assign({}, false);
  b.assign({}, false);
  b.run(b.machine.head_lost(b.now));
  b.join(2, 2);
  b.assign({}, false);
  CHECK(b.router == std::vector<bool>{true, false});
  b.assign({}, true);
  CHECK(b.router == std::vector<bool>{true, false, true});
}

TEST_CASE("the node knows who is revoked as the head says, before all else") {
  bench b;
  b.join();
  using list = std::vector<protocol::revocation>;
  b.assign({spec()}, true, {{"w9", 1}});
  REQUIRE(b.revoked == std::vector<list>{{{"w9", 1}}});
  CHECK(b.spawned.size() == 1);
  CHECK(b.spawned_before_revoked == 0);
  b.assign({spec()}, true, {{"w9", 1}});
  CHECK(b.revoked.size() == 1);
  b.assign({spec()}, true, {{"w9", 2}});
  CHECK(b.revoked.size() == 2);
  // Another head may have another list; of none it says so too.
  b.run(b.machine.head_lost(b.now));
  b.join(2, 2);
  b.assign({spec()});
  CHECK(b.revoked.back().empty());
  CHECK(b.revoked.size() == 3);
}

TEST_CASE("a change that needs no other process reaches the replica") {
  bench b;
  b.join();
  b.assign({spec()});
  auto x = spec();
  x.max_ongoing_requests = 5;
  b.assign({x});
  CHECK(b.tunes == std::vector<protocol::replica_spec>{x});
  CHECK(b.spawned.size() == 1);
}

TEST_CASE("a draining node starts nothing that the head still sends") {
  bench b;
  b.join();
  b.assign({spec()});
  b.run(b.machine.drain(1s, b.now));
  b.assign({spec(), spec("m#2")});
  CHECK(b.spawned.size() == 1);
  b.end({0, SIGTERM, ""});
  CHECK(b.all_stopped == 1);
  CHECK(b.machine.empty());
}

TEST_CASE("whatever the head does, an agent joins it in the end") {
  std::mt19937_64 random{11};
  for (int round = 0; round < 300; ++round) {
    bench b;
    std::uint64_t epoch = 0;
    for (int i = 0; i < 60; ++i) {
      auto registrations = b.registrations.size();
      switch (random() % 8) {
      case 0:
        b.run(b.machine.head_connected(b.now));
        break;
      case 1:
        b.run(b.machine.head_unreachable(b.now));
        break;
      case 2:
        b.run(b.machine.head_lost(b.now));
        break;
      case 3:
        b.welcome(1, epoch++);
        break;
      case 4:
        b.run(b.machine.welcomed({false, "no", 1, 1}, b.now));
        break;
      case 5:
        b.run(b.machine.router_port(random() % 3, b.now));
        break;
      case 6:
        b.assign({spec()});
        break;
      default:
        b.advance(milliseconds{random() % 3000});
      }
      // One event, one registration at most.
      REQUIRE(b.registrations.size() <= registrations + 1);
    }
    // A head that behaves from now on.
    for (int i = 0; i < 100 && !b.machine.joined(); ++i) {
      auto connects = b.connects;
      auto registrations = b.registrations.size();
      b.advance(b.limits.retry);
      if (b.connects != connects)
        b.run(b.machine.head_connected(b.now));
      if (b.registrations.size() != registrations)
        b.welcome(1, epoch++);
      // An attempt of before gets its end, too.
      if (i == 20)
        b.run(b.machine.head_unreachable(b.now));
    }
    CHECK(b.machine.joined());
  }
}
