#include "actors/protocol/latency_places.hpp"
#include "autoscaler/latency_window.hpp"
#include "autoscaler/policy/latency.hpp"

#include <catch2/catch.hpp>

#include <random>
#include <vector>

using namespace troupe;
using namespace troupe::autoscaler;
using namespace std::chrono_literals;

namespace {

const time_point start = time_point{} + 1000s;

/// A router's counts.
struct counter {
  std::vector<std::uint64_t> counts =
      std::vector<std::uint64_t>(protocol::latency_places);

  void see(double seconds, std::uint64_t times = 1) {
    counts[protocol::latency_place(seconds)] += times;
  }
};

scaling_options options_of(std::uint32_t max) {
  scaling_options out;
  out.max_replicas = max;
  out.target_ongoing_requests = 8;
  out.upscale_delay_s = 0;
  out.downscale_delay_s = 2;
  return out;
}

scaling_view view_of(std::uint32_t replicas, double running) {
  scaling_view out;
  out.replicas = out.target = replicas;
  out.running = running;
  return out;
}

const latency_goal one_second{1.0, {}};

std::uint32_t target(const latency_seen& seen, const latency_goal& goal,
                     const scaling_view& view,
                     const scaling_state& state = {}) {
  return latency(seen, goal, options_of(16), state, view, start).target;
}

} // namespace

TEST_CASE("each time has a place whose bounds hold it") {
  CHECK(protocol::latency_place(0) == 0);
  CHECK(protocol::latency_place(-1) == 0);
  CHECK(protocol::latency_place(1e9) == protocol::latency_places - 1);
  CHECK(protocol::latency_bound(protocol::latency_places - 1) > 30);
  std::mt19937 random{2};
  std::uniform_real_distribution<double> exponent{-3, 1.5};
  for (int i = 0; i < 10'000; ++i) {
    auto seconds = std::pow(10, exponent(random));
    auto place = protocol::latency_place(seconds);
    CHECK(seconds <= protocol::latency_bound(place) * (1 + 1e-6));
    if (place > 0)
      CHECK(seconds > protocol::latency_bound(place - 1) * (1 - 1e-6));
  }
}

TEST_CASE("a quantile is that of what came lately, over all routers") {
  latency_window window;
  counter a, b;
  a.see(20, 1000); // before it was first heard
  window.hear("a", 1, a.counts, start);
  window.hear("b", 1, b.counts, start);
  CHECK(!window.quantile(0.95, start));
  a.see(0.1, 10);
  window.hear("a", 1, a.counts, start + 1s);
  CHECK(!window.quantile(0.95, start + 1s)); // too few
  b.see(0.1, 80);
  b.see(2, 10);
  window.hear("b", 1, b.counts, start + 2s);
  window.hear("b", 1, b.counts, start + 2s); // once more: nothing new
  auto p50 = window.quantile(0.5, start + 2s);
  auto p95 = window.quantile(0.95, start + 2s);
  REQUIRE(p50);
  REQUIRE(p95);
  CHECK(*p50 == Approx(0.1).epsilon(0.25));
  CHECK(*p95 == Approx(2).epsilon(0.25));
  window.hear("b", 2, counter{}.counts, start + 3s); // another life
  CHECK(window.quantile(0.95, start + 3s) == p95);
  CHECK(!window.quantile(0.95, start + 30s));
  a.see(0.1, 100);
  window.hear("a", 1, a.counts, start + 30s);
  CHECK(*window.quantile(0.95, start + 30s) == Approx(0.1).epsilon(0.25));
  window.begin_anew(start + 40s);
  CHECK(!window.quantile(0.95, start + 31s));
  a.see(5, 100);
  window.hear("a", 1, a.counts, start + 39s); // it came before
  CHECK(!window.quantile(0.95, start + 39s));
  a.see(0.3, 100);
  window.hear("a", 1, a.counts, start + 41s);
  CHECK(*window.quantile(0.95, start + 41s) == Approx(0.3).epsilon(0.25));
  window.hear("a", 1, {}, start + 42s); // an older router says nothing
  CHECK(window.quantile(0.95, start + 42s));
}

TEST_CASE("more replicas by as much as clients wait too long, twice at most") {
  CHECK(target({1.4, {}}, one_second, view_of(4, 30)) == 6);
  CHECK(target({30, {}}, one_second, view_of(4, 30)) == 8);
  CHECK(target({0.9, {}}, one_second, view_of(4, 30)) == 4);
  CHECK(target({{}, {}}, one_second, view_of(4, 30)) == 4);
  // Who waits now counts before there is anything to count.
  latency_seen waits;
  waits.oldest_wait_s = 1.5;
  CHECK(target(waits, one_second, view_of(2, 30)) == 3);
  // The worse of the two.
  latency_goal both{1.0, 0.05};
  CHECK(target({0.2, 0.1}, both, view_of(2, 9)) == 4);
  CHECK(target({0.2, 0.1}, one_second, view_of(2, 9)) == 2);
}

TEST_CASE("a set-point that cannot be kept asks for a replica per request") {
  CHECK(target({30, {}}, one_second, view_of(4, 6)) == 6);
  CHECK(target({30, {}}, one_second, view_of(6, 6)) == 6);
  CHECK(target({30, {}}, one_second, view_of(6, 5)) == 6);
  // And for one less when there are fewer.
  scaling_state waited{-25, start};
  CHECK(target({30, {}}, one_second, view_of(6, 2), waited) == 5);
}

TEST_CASE("a change is waited for") {
  auto view = view_of(2, 30);
  view.target = 4;
  CHECK(target({30, {}}, one_second, view) == 4);
  view.target = 1;
  CHECK(target({30, {}}, one_second, view) == 1);
}

TEST_CASE("one less at a time, when the others can take what there is") {
  scaling_state waited{-25, start}; // longer than the delay
  CHECK(target({0.1, {}}, one_second, view_of(4, 10), waited) == 3);
  CHECK(target({0.1, {}}, one_second, view_of(4, 24), waited) == 4);
  CHECK(target({0.6, {}}, one_second, view_of(4, 10), waited) == 4);
  CHECK(target({0.1, {}}, one_second, view_of(4, 10)) == 4); // not long enough
  // Nobody is there to be measured.
  CHECK(target({{}, {}}, one_second, view_of(4, 0), waited) == 3);
  // Nor for a change that there is no room for.
  auto view = view_of(3, 0);
  view.target = 4;
  CHECK(target({{}, {}}, one_second, view, waited) == 2);
  view.target = 2;
  CHECK(target({{}, {}}, one_second, view, waited) == 2); // it comes
}

TEST_CASE("a wish for more says what was seen") {
  auto decided =
      latency({2.34, {}}, one_second, options_of(3), {}, view_of(2, 20), start);
  CHECK(decided.target == 3);
  CHECK(decided.reason.find("p95 first token of 2.34 s") != std::string::npos);
  CHECK(decided.held_back.find("max_replicas 3") != std::string::npos);
}
