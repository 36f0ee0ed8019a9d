#include "autoscaler/scaler.hpp"

#include "autoscaler/options.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <optional>
#include <string>

using namespace troupe;
using namespace troupe::autoscaler;
using namespace std::chrono_literals;

namespace {

const std::chrono::system_clock::time_point noon{};

// A scaler with one model, its router and what it last ordered.
struct bench {
  bench() {
    wanted.application = "app";
    wanted.model = "m";
    wanted.revision = 1;
    wanted.scaling.min_replicas = 1;
    wanted.scaling.max_replicas = 8;
    wanted.scaling.target_ongoing_requests = 10;
    wanted.target = 1;
    serve(1);
    know();
  }

  void serve(std::uint32_t count) {
    wanted.replicas.clear();
    for (std::uint32_t i = 1; i <= count; ++i)
      wanted.replicas.push_back({"app/m#" + std::to_string(i), i});
  }

  void know() {
    machine.know({nodes, {wanted}});
  }

  void route(std::uint32_t waiting, std::uint32_t sent,
             std::uint64_t incarnation = 1) {
    protocol::router_report report;
    report.node = "head";
    report.incarnation = incarnation;
    report.sequence = ++sequence;
    report.models = {{"app", "m", waiting, sent}};
    machine.hear(report, now);
  }

  protocol::replica_load_news news(std::uint32_t number,
                                   std::uint32_t choices) {
    protocol::replica_load_news out;
    out.application = "app";
    out.model = "m";
    out.replica = "app/m#" + std::to_string(number);
    out.incarnation = number;
    out.sequence = ++sequence;
    out.choices = choices;
    return out;
  }

  // The last order of so many ticks, obeyed at once.
  std::optional<protocol::scale_order> run(std::chrono::milliseconds time) {
    std::optional<protocol::scale_order> last;
    for (auto end = now + time; now < end; now += scaling_tick)
      for (auto& order : machine.tick(now, noon)) {
        wanted.target = order.target;
        last = order;
      }
    return last;
  }

  scaler machine;
  controller::scaled_model wanted;
  std::vector<std::string> nodes{"head"};
  time_point now{1h};
  std::uint64_t sequence = 0;
};

} // namespace

TEST_CASE("a step of load is answered within a second") {
  bench b;
  b.run(1s);
  b.route(0, 5);
  b.machine.hear(b.news(1, 5), b.now);
  b.run(1s);
  CHECK(b.wanted.target == 1);
  b.machine.hear(b.news(1, 41), b.now);
  b.route(7, 41);
  auto order = b.run(1s);
  REQUIRE(order);
  CHECK(order->target == 5); // 48 over 10
  CHECK(order->revision == 1);
  CHECK(order->now.find("41 running + 7 queued over 5 replicas of 10") !=
        std::string::npos);
  CHECK(order->reason.starts_with("up "));
}

TEST_CASE(
    "down comes after a minute without more, and says what it waits for") {
  bench b;
  b.wanted.target = 4;
  b.serve(4);
  b.know();
  for (std::uint32_t i = 1; i <= 4; ++i)
    b.machine.hear(b.news(i, 1), b.now);
  b.route(0, 4);
  auto hear_all = [&] {
    for (std::uint32_t i = 1; i <= 4; ++i)
      b.machine.hear(b.news(i, 1), b.now);
  };
  std::optional<protocol::scale_order> said;
  for (int i = 0; i < 58; ++i) {
    hear_all();
    b.route(0, 4);
    if (auto order = b.run(1s))
      said = order;
  }
  CHECK(b.wanted.target == 4);
  REQUIRE(said);
  CHECK(said->held_back.find("downscale_delay_s 60") != std::string::npos);
  // A burst in between begins it anew.
  b.machine.hear(b.news(1, 37), b.now);
  b.run(1s);
  auto quiet = [&](int seconds) {
    for (int i = 0; i < seconds; ++i) {
      hear_all();
      b.run(1s);
    }
  };
  quiet(59);
  CHECK(b.wanted.target == 4);
  quiet(3);
  CHECK(b.wanted.target < 4); // its end was in the window: wanted, too
  quiet(61);
  CHECK(b.wanted.target == 1);
}

TEST_CASE("down goes to the most that was wanted, if the window is ours") {
  for (bool ours : {true, false}) {
    bench b;
    b.wanted.scaling.look_back_period_s =
        ours ? std::nullopt : std::optional{0.5};
    b.wanted.scaling.downscale_delay_s = 30;
    b.wanted.revision = 2;
    b.wanted.target = 4;
    b.serve(4);
    b.know();
    auto hear_all = [&](std::uint32_t choices) {
      for (std::uint32_t i = 1; i <= 4; ++i)
        b.machine.hear(b.news(i, choices), b.now);
    };
    for (int i = 0; i < 20; ++i) {
      hear_all(7); // three replicas of ten
      b.run(1s);
    }
    for (int i = 0; i < 12 && b.wanted.target == 4; ++i) {
      hear_all(1);
      b.run(1s);
    }
    CHECK(b.wanted.target == (ours ? 3 : 1));
  }
}

TEST_CASE("the first request wakes a model at zero, once") {
  bench b;
  b.wanted.scaling.min_replicas = 0;
  b.wanted.revision = 2;
  b.wanted.target = 0;
  b.serve(0);
  b.know();
  b.run(1s);
  CHECK(b.wanted.target == 0);
  b.route(1, 0);
  auto order = b.run(200ms);
  REQUIRE(order);
  CHECK(order->target == 1);
  // Many wait for it: one birth all the same.
  b.know();
  b.route(50, 0);
  CHECK_FALSE(b.run(5s).value_or(*order).target != 1);
}

TEST_CASE("what is gone does not count") {
  bench b;
  SECTION("a replica that does not serve any more") {
    b.serve(2);
    b.know();
    b.machine.hear(b.news(2, 80), b.now);
    b.serve(1);
    b.know();
    b.machine.hear(b.news(1, 3), b.now);
    b.run(2s);
    CHECK(b.wanted.target == 1);
    // Nor does its last word, which comes too late.
    b.machine.hear(b.news(2, 80), b.now);
    b.run(2s);
    CHECK(b.wanted.target == 1);
  }
  SECTION("the router of a node that is lost") {
    b.machine.hear(b.news(1, 3), b.now);
    b.route(80, 3);
    b.nodes.clear();
    b.know();
    b.run(2s);
    CHECK(b.wanted.target == 1);
  }
  SECTION("a report that is late or doubled") {
    protocol::router_report late;
    late.node = "head";
    late.incarnation = 1;
    late.sequence = 1;
    late.models = {{"app", "m", 80, 0}};
    b.sequence = 1;
    b.route(0, 0);
    b.machine.hear(late, b.now);
    b.run(2s);
    CHECK(b.wanted.target == 1);
  }
  SECTION("an earlier life of a router, once the next has spoken") {
    b.machine.hear(b.news(1, 3), b.now);
    b.route(80, 0, 7);
    b.route(0, 3, 8);
    b.route(80, 0, 7);
    b.run(2s);
    CHECK(b.wanted.target == 1);
    b.route(20, 3, 8); // the later one is still heard
    b.run(2s);
    CHECK(b.wanted.target == 3);
  }
}

TEST_CASE("what comes back as it was counts again") {
  bench b;
  SECTION("a replica whose node was lost for a moment") {
    b.machine.hear(b.news(1, 80), b.now);
    b.serve(0);
    b.know();
    b.serve(1);
    b.know();
    b.machine.hear(b.news(1, 80), b.now);
    b.run(2s);
    CHECK(b.wanted.target == 8);
  }
  SECTION("the router of such a node") {
    b.machine.hear(b.news(1, 3), b.now);
    b.route(1, 3);
    auto nodes = b.nodes;
    b.nodes.clear();
    b.know();
    b.route(80, 3); // while it is away
    b.run(2s);
    CHECK(b.wanted.target == 1);
    b.nodes = nodes;
    b.know();
    b.run(2s);
    CHECK(b.wanted.target == 1);
    b.route(80, 3);
    b.run(2s);
    CHECK(b.wanted.target == 8);
  }
}

TEST_CASE("a model that nobody told of gets no orders") {
  scaler machine;
  protocol::router_report report;
  report.node = "head";
  report.incarnation = 1;
  report.sequence = 1;
  report.models = {{"app", "m", 80, 0}};
  machine.hear(report, time_point{1h});
  CHECK(machine.idle());
  CHECK(machine.tick(time_point{1h}, noon).empty());
}

TEST_CASE("another revision begins anew, with its bounds") {
  bench b;
  b.machine.hear(b.news(1, 80), b.now);
  b.run(1s);
  CHECK(b.wanted.target == 8);
  b.wanted.revision = 2;
  b.wanted.scaling.max_replicas = 3;
  b.know();
  auto order = b.run(1s);
  REQUIRE(order);
  CHECK(order->revision == 2);
  CHECK(b.wanted.target == 3);
}

TEST_CASE("the set-point that is not given is what a replica runs well") {
  CHECK(set_point(0, 0, true) == 8);
  CHECK(set_point(0, 0, false) == 16);
  CHECK(set_point(256, 0, true) == 8);
  CHECK(set_point(256, 0, false) == 256);
  CHECK(set_point(256, 64, true) == 64);
  CHECK(set_point(5, 64, true) == 5);
  CHECK(set_point(3, 0, true) == 3);
  bench b;
  b.wanted.scaling.target_ongoing_requests.reset();
  b.wanted.revision = 2;
  b.know();
  auto said = b.news(1, 10);
  said.seats = 5;
  b.machine.hear(said, b.now);
  auto order = b.run(1s);
  REQUIRE(order);
  CHECK(order->target == 2);
  CHECK(order->now.find("replicas of 5") != std::string::npos);
}

TEST_CASE("the policy by tokens counts work, and answers as they are usually") {
  bench b;
  b.wanted.scaling.policy = config::scaling_policy::tokens;
  b.wanted.scaling.target_queue_s = 10;
  b.wanted.revision = 2;
  b.know();
  auto said = b.news(1, 4);
  said.tokens_per_second = 100;
  said.waiting_tokens = 2'000;
  said.answer_tokens = 8'000; // allowed
  said.finished = 10;
  said.prompt_tokens = 1'000;
  said.output_tokens = 500; // so 50 each
  b.machine.hear(said, b.now);
  // 2000 + 4 x 50 to do, 10 s of 100/s each: 2.2.
  auto order = b.run(1s);
  REQUIRE(order);
  CHECK(order->target == 3);
  CHECK(order->now.find("2200 tokens to compute over 3 replicas of 1000 "
                        "(100/s for 10 s)") != std::string::npos);
  // One without a replica asks for a prompt of 100 and an answer of 50.
  b.route(20, 4);
  auto more = b.run(2s);
  REQUIRE(more);
  CHECK(more->target == 6); // 5200 / 1000
}

TEST_CASE("the policy by tokens asks for no more replicas than requests") {
  bench b;
  b.wanted.scaling.policy = config::scaling_policy::tokens;
  b.wanted.scaling.target_queue_s = 1;
  b.wanted.revision = 2;
  b.know();
  auto said = b.news(1, 2);
  said.tokens_per_second = 100;
  said.waiting_tokens = 100'000;
  b.machine.hear(said, b.now);
  auto order = b.run(1s);
  REQUIRE(order);
  CHECK(order->target == 2);
}

TEST_CASE("a schedule holds a minimum") {
  bench b;
  b.wanted.scaling.policy = config::scaling_policy::schedule;
  config::scheduled_minimum night;
  night.from_minute = 23 * 60;
  night.to_minute = 60;
  night.min_replicas = 4;
  b.wanted.scaling.schedule = {night};
  b.wanted.revision = 2;
  b.know();
  auto order = b.run(100ms); // midnight of a Thursday
  REQUIRE(order);
  CHECK(order->target == 4);
  CHECK(order->held_back.find("min_replicas 4") != std::string::npos);
}

TEST_CASE("the target capacity bounds what the load asks for, at once") {
  bench b;
  b.wanted.scaling.max_replicas = 8;
  b.wanted.target = 1;
  b.serve(1);
  b.wanted.target_capacity = 25;
  b.know();
  b.machine.hear(b.news(1, 500), b.now);
  b.run(2s);
  CHECK(b.wanted.target == 2);
  b.wanted.target_capacity = 100;
  b.know();
  b.run(2s);
  CHECK(b.wanted.target == 8);
}

TEST_CASE("what clients see is what the policy latency goes by") {
  bench b;
  b.wanted.scaling.policy = config::scaling_policy::latency;
  b.wanted.scaling.first_token_s = 0.5;
  b.wanted.scaling.max_replicas = 8;
  b.wanted.target = 1;
  b.serve(1);
  b.know();
  std::vector<std::uint64_t> counts(48);
  std::uint64_t sequence = 0;
  auto see = [&](double bound_place, std::uint64_t times) {
    counts.at(static_cast<std::size_t>(bound_place)) += times;
    protocol::router_report report;
    report.node = "head";
    report.incarnation = 1;
    report.sequence = ++sequence;
    report.models.push_back({b.wanted.application, b.wanted.model, 0, 4});
    report.models[0].first_tokens = counts;
    b.machine.hear(report, b.now);
  };
  see(0, 0);
  b.run(3s);
  CHECK(b.wanted.target == 1);
  see(31, 100); // about a second each
  auto order = b.run(1s);
  REQUIRE(order);
  CHECK(b.wanted.target == 2);
  CHECK(order->reason.find("p95 first token") != std::string::npos);
  // Until the second one serves, and for a while after, nothing more.
  see(31, 100);
  b.run(3s);
  CHECK(b.wanted.target == 2);
  b.serve(2);
  b.know();
  see(31, 100);
  b.run(500ms);
  CHECK(b.wanted.target == 2);
  b.run(2s);
  see(31, 100);
  b.run(1s);
  CHECK(b.wanted.target == 4);
}
