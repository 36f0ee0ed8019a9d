#include "actors/node_agent/supervisor.hpp"

#include <catch2/catch.hpp>

#include <csignal>

using namespace troupe;
using namespace troupe::node_agent;
using namespace std::chrono_literals;
using protocol::replica_phase;
using protocol::replica_report;

namespace {

protocol::replica_spec spec(const std::string& id = "m#1") {
  protocol::replica_spec x;
  x.replica = id;
  x.graceful_shutdown_timeout_ms = 1000;
  x.health_check_timeout_ms = 5000;
  x.health_check_period_ms = 4000;
  return x;
}

constexpr milliseconds silence_max = 5s; // health_check_timeout_ms
constexpr milliseconds stall_max = 12s;  // three times health_check_period_ms

/// A supervisor with the clock and the processes of a test.
struct bench {
  supervision_limits limits;
  supervisor machine{limits, 1};
  node_agent::clock::time_point now{};
  std::uint64_t incarnation = 0; ///< of the last process spawned
  int spawns = 0;
  std::vector<replica_report> reports;
  std::vector<int> signals;
  std::vector<milliseconds> drains;
  std::vector<protocol::replica_spec> tunes;
  int all_stopped = 0;

  void run(commands todo) {
    for (auto& x : todo)
      std::visit([this](auto& y) { take(y); }, x);
  }

  void take(spawn_process& x) {
    CHECK(x.incarnation != incarnation);
    incarnation = x.incarnation;
    ++spawns;
  }

  void take(signal_process& x) {
    CHECK(x.incarnation == incarnation);
    signals.push_back(x.signal);
  }

  void take(drain_replica& x) {
    CHECK(x.incarnation == incarnation);
    drains.push_back(x.grace);
  }

  void take(tune_replica& x) {
    CHECK(x.incarnation == incarnation);
    tunes.push_back(std::move(x.spec));
  }

  void take(send_report& x) {
    reports.push_back(std::move(x.report));
  }

  void take(node_agent::all_stopped&) {
    ++all_stopped;
  }

  void assign(std::vector<protocol::replica_spec> specs) {
    run(machine.assign(std::move(specs), now));
  }

  void start(protocol::replica_spec x = spec()) {
    assign({std::move(x)});
    run(machine.spawned(incarnation, 4711));
  }

  void say(replica_phase phase, std::uint64_t steps = 0,
           std::uint32_t running = 0, std::uint32_t longest_step_ms = 0) {
    replica_report x;
    x.replica = "m#1";
    x.incarnation = incarnation;
    x.phase = phase;
    x.load.steps = steps;
    x.load.running = running;
    x.load.longest_step_ms = longest_step_ms;
    run(machine.report(x, now));
  }

  void say_failed(const std::string& reason, bool hopeless = false) {
    replica_report x;
    x.replica = "m#1";
    x.incarnation = incarnation;
    x.phase = replica_phase::failed;
    x.reason = reason;
    x.budget_spent = hopeless;
    run(machine.report(x, now));
  }

  void end(process_end how = {0, SIGKILL, ""}) {
    run(machine.ended(incarnation, how, now));
  }

  void advance(milliseconds duration) {
    for (auto end = now + duration; now < end;) {
      now += std::min<milliseconds>(
          100ms, std::chrono::duration_cast<milliseconds>(end - now));
      run(machine.tick(now));
    }
  }

  /// `advance` while the replica says that it lives.
  void advance_alive(milliseconds duration, std::uint64_t steps,
                     std::uint32_t running, std::uint32_t longest_step_ms = 0) {
    for (auto end = now + duration; now < end;) {
      advance(500ms);
      say(replica_phase::ready, steps, running, longest_step_ms);
    }
  }

  /// How long a replica that steps no more is left alive, to half a second.
  milliseconds patience(std::uint64_t steps, std::uint32_t longest_step_ms) {
    say(replica_phase::ready, steps, 1, longest_step_ms);
    auto begin = now;
    while (signals.empty())
      advance_alive(500ms, steps, 1, longest_step_ms);
    return std::chrono::duration_cast<milliseconds>(now - begin);
  }

  const replica_report& last() const {
    REQUIRE_FALSE(reports.empty());
    return reports.back();
  }
};

} // namespace

TEST_CASE("a replica is started and its life told") {
  bench b;
  b.start();
  CHECK(b.spawns == 1);
  CHECK(b.last().phase == replica_phase::starting);
  CHECK(b.last().pid == 4711);
  CHECK(b.last().incarnation == b.incarnation);
  b.say(replica_phase::loading);
  CHECK(b.last().phase == replica_phase::loading);
  CHECK(b.last().pid == 4711);
  b.say(replica_phase::ready);
  b.advance_alive(20s, 0, 0);
  CHECK(b.spawns == 1);
  CHECK(b.signals.empty());
}

TEST_CASE("a replica that dies is started again at once, as a new one") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  auto old = b.incarnation;
  b.end();
  CHECK(b.spawns == 2);
  CHECK(b.incarnation != old);
  CHECK(b.reports[b.reports.size() - 2].phase == replica_phase::failed);
  CHECK(b.reports[b.reports.size() - 2].reason == "killed by SIGKILL");
  CHECK_FALSE(b.reports[b.reports.size() - 2].budget_spent);
  CHECK(b.last().phase == replica_phase::starting);
  CHECK(b.last().restarts == 1);
}

TEST_CASE("restarts wait longer each time and end when the budget is spent") {
  bench b;
  b.start();
  std::vector<milliseconds> pauses;
  for (int i = 0; i < 5; ++i) {
    b.say(replica_phase::ready);
    b.end();
    auto spawns = b.spawns - (i == 0 ? 1 : 0);
    auto begin = b.now;
    while (b.spawns == spawns)
      b.advance(100ms);
    pauses.push_back(std::chrono::duration_cast<milliseconds>(b.now - begin));
  }
  CHECK(pauses == std::vector<milliseconds>{0ms, 500ms, 1s, 2s, 4s});
  CHECK(b.spawns == 6);
  b.say(replica_phase::ready);
  b.end({1, 0, ""});
  CHECK(b.last().budget_spent);
  CHECK(b.last().reason == "exited with status 1");
  b.advance(5min);
  CHECK(b.spawns == 6);
  // The same again changes nothing; another spec is another chance.
  b.assign({spec()});
  CHECK(b.spawns == 6);
  auto other = spec();
  other.max_ongoing_requests = 9;
  b.start(other);
  CHECK(b.spawns == 7);
  CHECK_FALSE(b.last().budget_spent);
}

TEST_CASE("budget and longest pause are those of the spec") {
  bench b;
  auto x = spec();
  x.restarts_max = 3;
  x.restart_pause_max_ms = 700;
  b.start(x);
  for (int i = 0; i < 3; ++i) {
    CHECK(b.spawns == i + 1);
    b.say(replica_phase::ready);
    b.end();
    b.advance(700ms);
  }
  CHECK(b.spawns == 4);
  b.say(replica_phase::ready);
  b.end();
  CHECK(b.last().budget_spent);
}

TEST_CASE("a replica that served for a while is started again at once") {
  bench b;
  b.start();
  for (int i = 1; i <= 4; ++i) {
    b.say(replica_phase::ready);
    b.advance_alive(b.limits.settled, 0, 0);
    b.end();
    CHECK(b.spawns == i + 1);
  }
}

TEST_CASE("deaths that are far apart never spend the budget") {
  bench b;
  b.start();
  for (int i = 0; i < 20; ++i) {
    b.say(replica_phase::ready);
    b.advance_alive(15s, 0, 0);
    b.end();
    b.advance(5s);
  }
  CHECK(b.spawns == 21);
  CHECK_FALSE(b.last().budget_spent);
}

TEST_CASE("starts in a row that never get ready are counted") {
  bench b;
  auto x = spec();
  x.start_retries = 1;
  b.assign({x});
  b.end({1, 0, ""});
  CHECK(b.spawns == 2);
  b.end({1, 0, ""});
  CHECK(b.last().budget_spent);
}

TEST_CASE("the reason that a replica gives is kept") {
  bench b;
  b.start();
  b.say_failed("no such file");
  b.reports.clear();
  b.end({1, 0, ""});
  CHECK(b.reports[0].reason == "no such file");
}

TEST_CASE("a signal is part of the reason that a replica gives") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  b.say_failed("rank 2 hung up");
  b.reports.clear();
  b.end({0, SIGSEGV, ""});
  CHECK(b.reports[0].reason == "killed by SIGSEGV (rank 2 hung up)");
}

TEST_CASE("a replica that can never start is started once") {
  bench b;
  b.start();
  b.say_failed("no such heads", true);
  CHECK_FALSE(b.last().budget_spent); // its process is there yet
  b.end({1, 0, ""});
  CHECK(b.last().budget_spent);
  CHECK(b.last().reason == "no such heads");
  b.advance(5min);
  CHECK(b.spawns == 1);
  auto other = spec();
  other.tensor_parallel_size = 3;
  b.start(other);
  CHECK(b.spawns == 2);
}

TEST_CASE("a replica that was ready once may be so again") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  b.end();
  CHECK(b.spawns == 2);
  b.say_failed("no such heads", true); // somebody exchanges its files, say
  b.end({1, 0, ""});
  CHECK(b.spawns == 3);
  CHECK_FALSE(b.last().budget_spent);
}

TEST_CASE("a process that cannot be started is a failed start") {
  bench b;
  b.start();
  b.end({0, 0, "No such file or directory"});
  CHECK(b.spawns == 2);
  CHECK(b.reports[b.reports.size() - 2].reason ==
        "could not be started: No such file or directory");
}

TEST_CASE("what older incarnations say or do is ignored") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  replica_report old = b.last();
  b.end();
  auto told = b.reports.size();
  CHECK_FALSE(b.machine.knows(old));
  b.run(b.machine.report(old, b.now));
  b.run(b.machine.ended(old.incarnation, {}, b.now));
  CHECK(b.reports.size() == told);
  CHECK(b.spawns == 2);
}

TEST_CASE("a report that was overtaken by a later one is dropped") {
  bench b;
  b.start();
  replica_report x;
  x.replica = "m#1";
  x.incarnation = b.incarnation;
  x.phase = replica_phase::ready;
  x.load.sequence = 2;
  b.run(b.machine.report(x, b.now));
  auto told = b.reports.size();
  x.load.sequence = 1;
  b.run(b.machine.report(x, b.now));
  CHECK(b.reports.size() == told);
}

TEST_CASE("a replica that never registers is killed") {
  bench b;
  b.start();
  b.advance(b.limits.register_max - 100ms);
  CHECK(b.signals.empty());
  b.advance(200ms);
  CHECK(b.signals == std::vector<int>{SIGKILL});
  b.end();
  CHECK(b.reports[b.reports.size() - 2].reason ==
        "it did not register in time");
  CHECK(b.spawns == 2);
}

TEST_CASE("a replica that stops reporting is killed") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  b.advance(silence_max - 100ms);
  CHECK(b.signals.empty());
  b.advance(200ms);
  CHECK(b.signals == std::vector<int>{SIGKILL});
}

TEST_CASE("a node that stood still does not blame its replicas") {
  bench b;
  b.start();
  b.say(replica_phase::ready, 100, 1);
  b.advance(1s);
  b.now += 60s;
  SECTION("its clock ticks first") {
    b.run(b.machine.tick(b.now));
    b.say(replica_phase::ready, 100, 1);
  }
  SECTION("its replica is heard first") {
    b.say(replica_phase::ready, 100, 1);
    b.run(b.machine.tick(b.now));
  }
  b.advance(1s);
  CHECK(b.signals.empty());
  b.advance(silence_max);
  CHECK(b.signals == std::vector<int>{SIGKILL});
}

TEST_CASE("a replica whose steps stand still under load is killed") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  SECTION("not while it is idle") {
    b.advance_alive(2 * stall_max, 5, 0);
    CHECK(b.signals.empty());
  }
  SECTION("not while it makes steps") {
    for (std::uint64_t step = 1; step < 70; ++step)
      b.advance_alive(1s, step, 1);
    CHECK(b.signals.empty());
  }
  SECTION("when steps stand still") {
    b.advance_alive(stall_max + 2s, 5, 1);
    CHECK(b.signals == std::vector<int>{SIGKILL});
  }
  SECTION("and not before it says so") {
    b.say(replica_phase::ready, 100, 1);
    b.advance(silence_max - 500ms);
    CHECK(b.signals.empty());
    b.say(replica_phase::ready, 101, 1);
    b.advance_alive(1s, 101, 1);
    CHECK(b.signals.empty());
  }
}

TEST_CASE("a replica that made quick steps is known to hang sooner") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  SECTION("ten times its longest step") {
    CHECK(b.patience(100, 500) == 5s);
  }
  SECTION("at least two seconds") {
    CHECK(b.patience(100, 1) == 2s);
  }
  SECTION("at most three times its health check period") {
    CHECK(b.patience(100, 60'000) == stall_max);
  }
  SECTION("not by its first steps") {
    CHECK(b.patience(9, 1) == stall_max);
  }
}

TEST_CASE("a hung replica is killed once and its end told as that") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  b.patience(100, 1);
  b.advance_alive(10s, 100, 1, 1);
  CHECK(b.signals == std::vector<int>{SIGKILL});
  b.end();
  CHECK(b.reports[b.reports.size() - 2].reason ==
        "it made no step while requests were running");
}

TEST_CASE("a stopped replica is drained, then told to end, then killed") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  b.assign({});
  CHECK(b.drains == std::vector<milliseconds>{1000ms});
  b.advance(900ms);
  CHECK(b.signals.empty());
  b.advance(200ms);
  CHECK(b.signals == std::vector<int>{SIGTERM});
  b.advance(1s);
  CHECK(b.signals == std::vector<int>{SIGTERM, SIGKILL});
  b.end();
  CHECK(b.last().phase == replica_phase::stopped);
  CHECK(b.machine.empty());
  CHECK(b.spawns == 1);
}

TEST_CASE("a replica stopped before it registers is told to end at once") {
  bench b;
  b.start();
  b.assign({});
  CHECK(b.drains.empty());
  CHECK(b.signals == std::vector<int>{SIGTERM});
  b.end({0, SIGTERM, ""});
  CHECK(b.machine.empty());
}

TEST_CASE("a replica stopped while it waits for its restart is just gone") {
  bench b;
  b.start();
  b.end();
  b.end();
  CHECK(b.spawns == 2);
  b.assign({});
  CHECK(b.last().phase == replica_phase::stopped);
  CHECK(b.machine.empty());
}

TEST_CASE("another spec replaces a running replica") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  auto x = spec();
  x.threads = 7;
  b.assign({x});
  CHECK(b.drains.size() == 1);
  CHECK(b.spawns == 1);
  b.end({0, 0, ""});
  CHECK(b.spawns == 2);
  // The same spec again changes nothing.
  auto told = b.reports.size();
  b.assign({x});
  CHECK(b.spawns == 2);
  CHECK(b.reports.size() == told);
}

TEST_CASE("a replica is tuned where no other process is needed") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  auto x = spec();
  x.max_ongoing_requests = 3;
  x.graceful_shutdown_timeout_ms = 2500;
  b.assign({x});
  CHECK(b.tunes == std::vector<protocol::replica_spec>{x});
  CHECK(b.drains.empty());
  CHECK(b.spawns == 1);
  b.assign({x});
  CHECK(b.tunes.size() == 1);
  b.assign({});
  CHECK(b.drains == std::vector<milliseconds>{2500ms});
}

TEST_CASE("a list starts what is new and ends what is not in it") {
  supervisor machine{{}, 1};
  node_agent::clock::time_point now{};
  auto started = [](const commands& todo) {
    std::vector<std::string> out;
    for (const auto& x : todo)
      if (auto* spawn = std::get_if<spawn_process>(&x))
        out.push_back(spawn->spec.replica);
    return out;
  };
  using ids = std::vector<std::string>;
  auto first = machine.assign({spec("a#1"), spec("a#2"), spec("a#1")}, now);
  CHECK(started(first) == ids{"a#1", "a#2"});
  auto second = machine.assign({spec("a#2"), spec("a#3")}, now);
  CHECK(started(second) == ids{"a#3"});
  auto all = machine.replicas();
  REQUIRE(all.size() == 3);
  CHECK(all[0].report.phase == replica_phase::draining);
  CHECK(all[1].report.phase == replica_phase::starting);
  CHECK(all[2].spec == spec("a#3"));
  REQUIRE(machine.spec_of(all[0].report.incarnation) != nullptr);
  CHECK(*machine.spec_of(all[0].report.incarnation) == spec("a#1"));
  machine.ended(all[0].report.incarnation, {}, now);
  CHECK(machine.replicas().size() == 2);
  CHECK(machine.spec_of(all[0].report.incarnation) == nullptr);
}

TEST_CASE("a replica that is wanted again while it stops comes back") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  b.assign({});
  CHECK(b.last().phase == replica_phase::draining);
  b.say(replica_phase::ready);
  CHECK(b.last().phase == replica_phase::draining);
  b.assign({spec()});
  CHECK(b.spawns == 1);
  b.end({0, 0, ""});
  CHECK(b.spawns == 2);
}

TEST_CASE("a replica that falls silent is not waited for when it stops") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  b.run(b.machine.drain(600s, b.now));
  b.advance(60s);
  CHECK(b.signals == std::vector<int>{SIGKILL});
}

TEST_CASE("draining the node ends every replica in the time given") {
  bench b;
  b.start();
  b.say(replica_phase::ready);
  b.run(b.machine.drain(10s, b.now));
  CHECK(b.drains == std::vector<milliseconds>{8s});
  CHECK(b.all_stopped == 0);
  b.advance_alive(9s + 100ms, 0, 0);
  CHECK(b.signals == std::vector<int>{SIGTERM, SIGKILL});
  b.end();
  CHECK(b.all_stopped == 1);
  b.assign({spec()});
  CHECK(b.spawns == 1);
}

TEST_CASE("draining an empty node is done at once") {
  bench b;
  b.run(b.machine.drain(10s, b.now));
  CHECK(b.all_stopped == 1);
}

TEST_CASE("no order of events makes the supervisor lose count") {
  std::mt19937_64 random{7};
  for (int round = 0; round < 200; ++round) {
    bench b;
    bool process = false;
    for (int i = 0; i < 100; ++i) {
      auto spawns = b.spawns;
      switch (random() % 7) {
      case 0: {
        auto x = spec();
        x.threads = static_cast<std::int32_t>(random() % 2);
        x.max_ongoing_requests = random() % 2;
        b.assign({x});
        break;
      }
      case 1:
        b.assign({});
        break;
      case 2:
        if (process) {
          process = false;
          b.end();
        }
        break;
      case 3:
        b.say(replica_phase::ready, random() % 3, random() % 2);
        break;
      case 4:
        b.advance(milliseconds{random() % 3000});
        break;
      case 5:
        b.advance(milliseconds{random() % 40'000});
        break;
      default:
        b.run(b.machine.spawned(b.incarnation, 1));
      }
      // Never two processes of one replica.
      REQUIRE(b.spawns - spawns <= (process ? 0 : 1));
      process = process || b.spawns != spawns;
    }
    b.run(b.machine.drain(1s, b.now));
    b.advance(1s);
    if (process) {
      REQUIRE_FALSE(b.signals.empty());
      b.end();
    }
    CHECK(b.all_stopped == 1);
    CHECK(b.machine.empty());
  }
}
