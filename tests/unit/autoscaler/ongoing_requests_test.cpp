#include "autoscaler/policy/ongoing_requests.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

using namespace troupe::autoscaler;
using namespace std::chrono_literals;

namespace {

constexpr time_point start{1h};

scaling_options without_delay(std::uint32_t min, std::uint32_t max) {
  scaling_options out;
  out.min_replicas = min;
  out.max_replicas = max;
  out.target_ongoing_requests = 10;
  out.upscale_delay_s = 0;
  out.downscale_delay_s = 0;
  return out;
}

scaling_view seen(double load, std::uint32_t running, std::uint32_t target) {
  scaling_view out;
  out.running = load;
  out.replicas = running;
  out.target = target;
  return out;
}

scaling_decision decide(const scaling_options& options,
                        const scaling_view& view) {
  return ongoing_requests(options, {}, view, start);
}

} // namespace

// In the tables below T is the load, R the replicas that run, C the target.

TEST_CASE("the formula: load over set-point, factors, rounding, bounds") {
  struct row {
    const char* why;
    std::uint32_t min, max;
    double set_point, up, down; // the factors
    double load;
    std::uint32_t running, target, expected;
  };
  const std::vector<row> rows{
      // From here to the factors: desired = T / set-point, rounded up.
      {"30 / 10 = 3: nothing to do", 0, 100, 10, 1, 1, 30, 3, 3, 3},
      {"3.1 is 4", 0, 100, 10, 1, 1, 31, 3, 3, 4},
      {"48 / 16 = 3, straight from 1", 0, 100, 16, 1, 1, 48, 1, 1, 3},
      {"2.1 is still 3", 0, 100, 10, 1, 1, 21, 3, 3, 3},
      {"2.0 is 2", 0, 100, 10, 1, 1, 20, 3, 3, 2},
      {"0.1 is 1, straight from 3", 0, 100, 10, 1, 1, 1, 3, 3, 1},
      {"no bound on a jump but max", 0, 100, 10, 1, 1, 1000, 1, 1, 100},
      {"101 is cut to max 100", 0, 100, 10, 1, 1, 1010, 1, 1, 100},
      {"1 is raised to min 2", 2, 100, 10, 1, 1, 5, 4, 4, 2},
      {"min = max = 3, overload", 3, 3, 10, 1, 1, 1000, 3, 3, 3},
      {"min = max = 3, idle", 3, 3, 10, 1, 1, 0, 3, 3, 3},
      {"set-point of 1e9 never scales", 0, 100, 1e9, 1, 1, 5000, 1, 1, 1},
      // Upscaling factor.
      {"2 + 2 x (4 - 2) = 6", 0, 100, 10, 2, 1, 40, 2, 2, 6},
      {"2 + 0.5 x (6 - 2) = 4", 0, 100, 10, 0.5, 1, 60, 2, 2, 4},
      {"2 + 0.3 x (3 - 2) = 2.3 is 3", 0, 100, 10, 0.3, 1, 30, 2, 2, 3},
      {"5 + 0.01 x 0.1 is 6", 0, 100, 10, 0.01, 1, 51, 5, 5, 6},
      {"2 + 100 x 3 = 302 is cut", 0, 100, 10, 100, 1, 50, 2, 2, 100},
      {"down does not use it", 0, 100, 10, 10, 1, 20, 5, 5, 2},
      {"desired = R does not use it", 0, 100, 10, 10, 1, 30, 3, 3, 3},
      // Downscaling factor, and one less where rounding up would stick.
      {"10 + 0.5 x (2 - 10) = 6", 0, 100, 10, 1, 0.5, 20, 10, 10, 6},
      {"4 - 0.1 x 2 = 3.8 is 4, stuck: 3", 0, 100, 10, 1, 0.1, 20, 4, 4, 3},
      {"3.95 is 4, and 3.5 is 4: keep", 0, 100, 10, 1, 0.1, 35, 4, 4, 4},
      {"4 + 0.25 x (0 - 4) = 3", 0, 100, 10, 1, 0.25, 0, 4, 4, 3},
      {"3 - 0.5 x 1.5 = 2.25 is 3, stuck: 2", 0, 100, 10, 1, 0.5, 15, 3, 3, 2},
      {"4 + 2 x (2 - 4) = 0, from 4 it is 1", 0, 100, 10, 1, 2, 20, 4, 4, 1},
      {"4 + 3 x (1 - 4) = -5, it is 1", 0, 100, 10, 1, 3, 10, 4, 4, 1},
      {"-5 is cut to min 2", 2, 100, 10, 1, 3, 10, 4, 4, 2},
      {"up does not use it", 0, 100, 10, 1, 0.1, 50, 2, 2, 5},
      {"stuck, but min forbids: 4", 4, 100, 10, 1, 0.1, 20, 4, 4, 4},
      // Desired comes from R, the comparison is with C.
      {"two of three start: 3 = C", 0, 100, 10, 1, 1, 30, 1, 3, 3},
      {"two of three start, 4 > C", 0, 100, 10, 1, 1, 40, 1, 3, 4},
      {"two of three start, 2 < C", 0, 100, 10, 1, 1, 20, 1, 3, 2},
      {"three of five end, 2 = C", 0, 100, 10, 1, 1, 20, 5, 2, 2},
      {"three of five end, 3 > C", 0, 100, 10, 1, 1, 30, 5, 2, 3},
      {"5 - 0.1 x 2 = 4.8 is 5, less 1: 4 > C", 0, 100, 10, 1, 0.1, 30, 5, 2,
       4},
      // Zero only from one.
      {"idle, from 3: 1", 0, 100, 10, 1, 1, 0, 3, 3, 1},
      {"idle, from 2: 1", 0, 100, 10, 1, 1, 0, 2, 2, 1},
      {"idle, from 1: 0", 0, 100, 10, 1, 1, 0, 1, 1, 0},
      {"any load keeps the one", 0, 100, 10, 1, 1, 0.01, 1, 1, 1},
      {"C = 1 while two run: 0", 0, 100, 10, 1, 1, 0, 2, 1, 0},
      {"C = 2 while one runs: 1", 0, 100, 10, 1, 1, 0, 1, 2, 1},
      {"1 - 0.5 is 1, stuck: 0", 0, 100, 10, 1, 0.5, 0, 1, 1, 0},
      {"min 1 keeps the one", 1, 100, 10, 1, 1, 0, 1, 1, 1},
      // Nothing runs.
      {"nothing to do at zero", 0, 100, 10, 1, 1, 0, 0, 0, 0},
      {"one request wakes one", 0, 100, 10, 1, 1, 1, 0, 0, 1},
      {"a thousand wake one", 0, 100, 10, 1, 1, 1000, 0, 0, 1},
      {"ceil(2.5) are woken", 0, 100, 10, 2.5, 1, 1, 0, 0, 3},
      {"ceil(0.5) is woken", 0, 100, 10, 0.5, 1, 1, 0, 0, 1},
      {"200 are cut to max", 0, 100, 10, 200, 1, 1, 0, 0, 100},
      {"the least load wakes", 0, 100, 10, 1, 1, 0.001, 0, 0, 1},
      {"four start already", 0, 100, 10, 1, 1, 1, 0, 4, 4},
      {"four start, factor 6 wants more", 0, 100, 10, 6, 1, 1, 0, 4, 6},
      {"four start, no load: kept", 0, 100, 10, 1, 1, 0, 0, 4, 4},
      {"zero below min is raised", 1, 100, 10, 1, 1, 0, 0, 0, 1},
      {"seven above max are cut", 0, 5, 10, 1, 1, 0, 0, 7, 5},
      // Doubles. Ray's are the same.
      {"0.3 / 0.1 = 2.9999999999999996 is 3", 0, 100, 0.1, 1, 1, 0.3, 1, 1, 3},
      {"2.1 / 0.7 = 3.0000000000000004 is 4", 0, 100, 0.7, 1, 1, 2.1, 1, 1, 4},
      {"1 + 0.14 x 100 = 15.000000000000002 is 16", 0, 100, 10, 0.14, 1, 1010,
       1, 1, 16},
      {"3 + 1e-9 x 1e-7 = 3 in doubles: no step", 0, 100, 10, 1e-9, 1,
       30.000001, 3, 3, 3},
      {"2 + 1e-9 x 1 is 3", 0, 100, 10, 1e-9, 1, 30, 2, 2, 3},
      {"2 - 1e-9 x 2 is 2, stuck: 1", 0, 100, 10, 1, 1e-9, 0, 2, 2, 1},
      {"1e12 / 1e-9 x 1e6 is cut to max", 0, 100, 1e-9, 1e6, 1, 1e12, 1, 1,
       100},
      {"4096 - 1e6 x 4096 is cut to 1", 0, 4096, 10, 1, 1e6, 0, 4096, 4096, 1},
  };
  for (const row& r : rows) {
    INFO(r.why);
    auto options = without_delay(r.min, r.max);
    options.target_ongoing_requests = r.set_point;
    options.upscaling_factor = r.up;
    options.downscaling_factor = r.down;
    CHECK(decide(options, seen(r.load, r.running, r.target)).target ==
          r.expected);
  }
}

TEST_CASE("the counter: so many ticks in a row, on one side") {
  constexpr double unset = -1;
  struct row {
    const char* why;
    std::uint32_t min;
    double up_s, down_s, to_zero_s, load;
    std::uint32_t running, target;
    std::int64_t before;
    std::uint32_t expected;
    std::int64_t after;
  };
  // Set-point 1, max 10: the load is the number of replicas wanted.
  const std::vector<row> rows{
      {"first tick of 301", 0, 30, 600, unset, 3, 1, 1, 0, 1, 1},
      {"300 is not above 300", 0, 30, 600, unset, 3, 1, 1, 299, 1, 300},
      {"301 acts and starts over", 0, 30, 600, unset, 3, 1, 1, 300, 3, 0},
      {"without delay the first acts", 0, 0, 600, unset, 3, 1, 1, 0, 3, 0},
      {"0.1 s: 1 is not above 1", 0, 0.1, 600, unset, 3, 1, 1, 0, 1, 1},
      {"0.1 s: 2 is", 0, 0.1, 600, unset, 3, 1, 1, 1, 3, 0},
      {"0.05 s are 0 ticks", 0, 0.05, 600, unset, 3, 1, 1, 0, 3, 0},
      {"0.25 s are 2 ticks", 0, 0.25, 600, unset, 3, 1, 1, 1, 1, 2},
      {"0.3 / 0.1 in doubles is 2 ticks", 0, 0.3, 600, unset, 3, 1, 1, 2, 3, 0},
      {"0.4 / 0.1 is 4 ticks", 0, 0.4, 600, unset, 3, 1, 1, 3, 1, 4},
      {"up after down starts at 1", 0, 30, 600, unset, 3, 1, 1, -250, 1, 1},
      {"down after up starts at -1", 0, 30, 600, unset, 1, 3, 3, 250, 3, -1},
      {"equal resets what was up", 0, 30, 600, unset, 3, 3, 3, 250, 3, 0},
      {"equal resets what was down", 0, 30, 600, unset, 3, 3, 3, -5000, 3, 0},
      {"more wanted, same side: it goes on", 0, 30, 600, unset, 9, 1, 1, 300, 9,
       0},
      {"max makes it equal: reset", 0, 30, 600, unset, 50, 10, 10, 200, 10, 0},
      {"min makes it equal: reset", 2, 30, 600, unset, 0, 2, 2, -200, 2, 0},
      {"6000 is not above 6000", 0, 30, 600, unset, 2, 5, 5, -5999, 5, -6000},
      {"6001 acts", 0, 30, 600, unset, 2, 5, 5, -6000, 2, 0},
      {"from 3 the idle go to 1", 0, 30, 600, unset, 0, 3, 3, -6000, 1, 0},
      {"to zero with the delay of down", 0, 30, 600, unset, 0, 1, 1, -6000, 0,
       0},
      {"to zero, one tick before it", 0, 30, 600, unset, 0, 1, 1, -5999, 1,
       -6000},
      {"to zero with a delay of its own", 0, 30, 600, 60, 0, 1, 1, -600, 0, 0},
      {"that delay's last tick", 0, 30, 600, 60, 0, 1, 1, -599, 1, -600},
      {"it is not for 2 to 1", 0, 30, 600, 60, 0, 2, 2, -600, 2, -601},
      {"to zero at once", 0, 30, 600, 0, 0, 1, 1, 0, 0, 0},
      {"to zero later than down", 0, 30, 600, 3600, 0, 1, 1, -6000, 1, -6001},
      {"down at once, to zero later", 0, 30, 0, 3600, 0, 4, 4, 0, 1, 0},
      {"waking does not count", 0, 30, 600, unset, 5, 0, 0, 250, 1, 250},
      {"nothing runs: the counter rests", 0, 30, 600, unset, 0, 0, 2, -100, 2,
       -100},
  };
  for (const row& r : rows) {
    INFO(r.why);
    auto options = without_delay(r.min, 10);
    options.target_ongoing_requests = 1;
    options.upscale_delay_s = r.up_s;
    options.downscale_delay_s = r.down_s;
    if (r.to_zero_s != unset)
      options.downscale_to_zero_delay_s = r.to_zero_s;
    scaling_state state{r.before, start - scaling_tick};
    auto out = ongoing_requests(options, state,
                                seen(r.load, r.running, r.target), start);
    CHECK(out.target == r.expected);
    CHECK(out.state == scaling_state{r.after, start});
  }
}

TEST_CASE("target capacity scales the bounds") {
  constexpr double unset = -1;
  struct row {
    const char* why;
    std::uint32_t min;
    bool initial; // 4
    double capacity;
    bool rising;
    double load;
    std::uint32_t running, target, expected;
  };
  // Set-point 1, max 10.
  const std::vector<row> rows{
      {"unset is all", 2, false, unset, false, 50, 1, 1, 10},
      {"100 % is all", 2, false, 100, false, 50, 1, 1, 10},
      {"50 % of 10", 2, false, 50, false, 50, 1, 1, 5},
      {"50 % of min 2", 2, false, 50, false, 0, 5, 5, 1},
      {"25 % of 10 is 2.5, halves go up", 2, false, 25, false, 50, 1, 1, 3},
      {"15 % of 10 is 1.5, halves go up", 2, false, 15, false, 50, 1, 1, 2},
      {"33.3 % of 10", 2, false, 33.3, false, 50, 1, 1, 3},
      {"1 % of 10 is 0.1, at least 1", 2, false, 1, false, 50, 1, 1, 1},
      {"1 % of min 0 is 0", 0, false, 1, false, 0, 1, 1, 0},
      {"0 % is none, whatever the load", 2, false, 0, false, 50, 1, 1, 0},
      {"0 %: from 5 at once, not over 1", 2, false, 0, false, 50, 5, 5, 0},
      {"0 %: nothing wakes", 0, false, 0, false, 50, 0, 0, 0},
      {"rising to 100 %: initial is the least", 2, true, 100, true, 0, 4, 4, 4},
      {"rising to 50 %: half of initial", 2, true, 50, true, 0, 4, 4, 2},
      {"falling to 50 %: half of min", 2, true, 50, false, 0, 4, 4, 1},
      {"rising without initial: half of min", 2, false, 50, true, 0, 4, 4, 1},
      {"rising lifts what is below", 2, true, 100, true, 0, 2, 2, 4},
      {"rising, nothing runs yet", 2, true, 50, true, 0, 0, 0, 2},
      {"rising, load above initial", 2, true, 80, true, 7, 2, 2, 7},
      {"rising, load above 80 % of max", 2, true, 80, true, 9, 2, 2, 8},
  };
  for (const row& r : rows) {
    INFO(r.why);
    auto options = without_delay(r.min, 10);
    options.target_ongoing_requests = 1;
    if (r.initial)
      options.initial_replicas = 4;
    auto view = seen(r.load, r.running, r.target);
    if (r.capacity != unset)
      view.target_capacity = r.capacity;
    view.capacity_rising = r.rising;
    CHECK(decide(options, view).target == r.expected);
  }
}

TEST_CASE("bounds hold at once, whatever the delays") {
  auto options = without_delay(2, 10);
  options.upscale_delay_s = options.downscale_delay_s = 1e7;
  auto view = seen(100, 10, 10);
  view.target_capacity = 50;
  auto out = decide(options, view);
  CHECK(out.target == 5);
  CHECK(out.reason == "down 10→5: max_replicas 10 at 50 % target capacity");
  options.initial_replicas = 6;
  view = seen(0, 2, 2);
  view.target_capacity = 100;
  view.capacity_rising = true;
  out = decide(options, view);
  CHECK(out.target == 6);
  CHECK(out.reason == "up 2→6: initial_replicas 6");
}

TEST_CASE("the old names of the factors are used where the new are not set") {
  using some = std::optional<double>;
  struct row {
    const char* why;
    some up, up_old, down, down_old;
    double smoothing;
    std::uint32_t up_to, down_to;
  };
  // Up from 2 towards 6, down from 10 towards 2.
  const std::vector<row> rows{
      {"none: 1", {}, {}, {}, {}, 1, 6, 2},
      {"smoothing_factor for both", {}, {}, {}, {}, 0.5, 4, 6},
      {"upscale_smoothing_factor before it", {}, 0.25, {}, {}, 0.5, 3, 6},
      {"downscale_smoothing_factor before it", {}, {}, {}, 0.25, 0.5, 4, 8},
      {"the new names before all", 2, 0.25, 0.75, 0.25, 0.5, 10, 4},
  };
  for (const row& r : rows) {
    INFO(r.why);
    auto options = without_delay(0, 100);
    options.upscaling_factor = r.up;
    options.upscale_smoothing_factor = r.up_old;
    options.downscaling_factor = r.down;
    options.downscale_smoothing_factor = r.down_old;
    options.smoothing_factor = r.smoothing;
    CHECK(decide(options, seen(60, 2, 2)).target == r.up_to);
    CHECK(decide(options, seen(20, 10, 10)).target == r.down_to);
  }
}

TEST_CASE("a slower call counts the ticks since, up to ten") {
  struct row {
    const char* why;
    std::chrono::milliseconds since;
    std::int64_t before, after;
    std::chrono::milliseconds left_over;
  };
  const std::vector<row> rows{
      {"sooner than a tick: none", 99ms, 5, 5, 99ms},
      {"a tick", 100ms, 5, 6, 0ms},
      {"the rest of a tick is kept", 250ms, 5, 7, 50ms},
      {"a second", 1000ms, 5, 15, 0ms},
      {"a minute counts as a second", 60s, 5, 15, 0ms},
      {"the first sight is 1, however late", 1000ms, 0, 1, 0ms},
      {"and so it is after the other side", 1000ms, -7, 1, 0ms},
      {"a clock that falls counts none", -5s, 5, 5, 0ms},
  };
  auto options = without_delay(0, 10);
  options.upscale_delay_s = 30;
  for (const row& r : rows) {
    INFO(r.why);
    auto out = ongoing_requests(options, {r.before, start - r.since},
                                seen(50, 1, 1), start);
    CHECK(out.target == 1);
    CHECK(out.state == scaling_state{r.after, start - r.left_over});
  }
}

TEST_CASE("a delay is over after the same time, however often it is called") {
  auto options = without_delay(0, 10);
  options.upscale_delay_s = 30;
  for (auto period : {10ms, 30ms, 100ms, 250ms, 500ms, 1000ms}) {
    INFO(period.count());
    scaling_state state;
    auto now = start;
    for (;; now += period) {
      REQUIRE(now < start + 60s);
      auto out = ongoing_requests(options, state, seen(50, 1, 1), now);
      state = out.state;
      if (out.target != 1)
        break;
    }
    CHECK(now >= start + 30s);
    CHECK(now < start + 30s + period);
  }
}

TEST_CASE("a wish that rests for one tick waits all over again") {
  auto options = without_delay(0, 10);
  options.upscale_delay_s = 2;
  scaling_state state;
  auto now = start;
  auto tick = [&](double load) {
    now += scaling_tick;
    auto out = ongoing_requests(options, state, seen(load, 1, 1), now);
    state = out.state;
    return out.target;
  };
  for (int i = 0; i < 20; ++i)
    REQUIRE(tick(50) == 1);
  REQUIRE(tick(10) == 1);
  for (int i = 0; i < 20; ++i)
    REQUIRE(tick(50) == 1);
  CHECK(tick(50) == 5);
}

TEST_CASE("the reason and what holds back are sentences") {
  auto options = without_delay(0, 4);
  options.target_ongoing_requests = 16;
  auto view = seen(41, 1, 1);
  view.queued = 7;
  auto out = decide(options, view);
  CHECK(out.reason == "up 1→3: 41 running + 7 queued over 3 replicas of 16");
  CHECK(out.held_back.empty());

  view.queued = 7.25;
  view.target = view.replicas = 4;
  CHECK(decide(options, view).reason ==
        "keep 4: 41 running + 7.3 queued over 4 replicas of 16");

  view = seen(100, 2, 2);
  out = decide(options, view);
  CHECK(out.reason == "up 2→4: 100 running + 0 queued over 4 replicas of 16");
  CHECK(out.held_back == "max_replicas 4: 7 wanted");

  options.upscale_delay_s = 30;
  CHECK(decide(options, view).held_back ==
        "max_replicas 4: 7 wanted; upscale_delay_s 30: 2→4 in 30.0 s");

  options.downscale_delay_s = 600;
  options.downscale_to_zero_delay_s = 60;
  CHECK(decide(options, seen(0, 3, 3)).held_back ==
        "to zero only from one replica; downscale_delay_s 600: 3→1 in 600.0 s");
  CHECK(decide(options, seen(0, 1, 1)).held_back ==
        "downscale_to_zero_delay_s 60: 1→0 in 60.0 s");

  options.min_replicas = 1;
  out = decide(options, seen(0, 1, 1));
  CHECK(out.reason == "keep 1: 0 running + 0 queued over 1 replica of 16");
  CHECK(out.held_back == "min_replicas 1: 0 wanted");
}

namespace {

struct draw {
  scaling_options options;
  scaling_view view;
  scaling_state state;
};

draw draw_one(std::mt19937_64& random) {
  auto below = [&](std::uint32_t n) {
    return static_cast<std::uint32_t>(random() % n);
  };
  auto some = [&](double x) {
    return below(2) ? std::optional<double>{x} : std::nullopt;
  };
  auto factor = [&] { return std::pow(10.0, below(13) - 9.0); };
  draw out;
  auto& o = out.options;
  o.min_replicas = below(4);
  o.max_replicas = std::max(1u, o.min_replicas + below(20));
  if (below(2))
    o.initial_replicas =
        o.min_replicas + below(o.max_replicas - o.min_replicas + 1);
  o.target_ongoing_requests = factor();
  o.upscale_delay_s = below(40) / 10.0;
  o.downscale_delay_s = below(40) / 10.0;
  o.downscale_to_zero_delay_s = some(below(40) / 10.0);
  o.upscaling_factor = some(factor());
  o.downscaling_factor = some(factor());
  o.smoothing_factor = factor();
  auto& v = out.view;
  v.running = below(3) ? below(1000) / 7.0 : 0;
  v.queued = below(3) ? below(1000) / 3.0 : 0;
  v.replicas = below(8);
  v.target = below(30);
  v.target_capacity = some(below(101));
  v.capacity_rising = below(2);
  out.state = {static_cast<std::int64_t>(below(80)) - 40,
               start - scaling_tick * below(20)};
  return out;
}

double share_of(const scaling_view& view) {
  return view.target_capacity.value_or(100) / 100;
}

} // namespace

TEST_CASE("the target is always within bounds, equal inputs give equal ones") {
  std::mt19937_64 random{6};
  for (int i = 0; i < 20'000; ++i) {
    auto d = draw_one(random);
    auto out = ongoing_requests(d.options, d.state, d.view, start);
    REQUIRE(out == ongoing_requests(d.options, d.state, d.view, start));
    REQUIRE(out.target <= d.options.max_replicas);
    REQUIRE(out.target <= std::ceil(d.options.max_replicas * share_of(d.view)));
    REQUIRE(out.target >=
            std::floor(d.options.min_replicas * share_of(d.view)));
    REQUIRE((d.options.min_replicas == 0 || share_of(d.view) == 0 ||
             out.target > 0));
    REQUIRE(!out.reason.empty());
  }
}

TEST_CASE("no change within a delay while the target is within bounds") {
  std::mt19937_64 random{7};
  int waited = 0;
  for (int i = 0; i < 2'000; ++i) {
    auto d = draw_one(random);
    d.options.upscale_delay_s = d.options.downscale_delay_s = 2;
    d.options.downscale_to_zero_delay_s.reset();
    d.view.target_capacity.reset();
    d.view.capacity_rising = false;
    d.view.replicas = 1 + d.view.replicas;
    d.view.target = std::clamp(d.view.target, d.options.min_replicas,
                               d.options.max_replicas);
    scaling_state state;
    for (int tick = 0; tick < 20; ++tick) { // floor(2 / 0.1)
      auto out = ongoing_requests(d.options, state, d.view,
                                  start + tick * scaling_tick);
      state = out.state;
      REQUIRE(out.target == d.view.target);
    }
    waited += state.counter != 0;
    auto last =
        ongoing_requests(d.options, state, d.view, start + 20 * scaling_tick);
    REQUIRE((last.target != d.view.target) == (state.counter != 0));
  }
  CHECK(waited > 500);
}

TEST_CASE("a load that is no number stays within bounds") {
  auto options = without_delay(1, 5);
  for (double load : {std::numeric_limits<double>::infinity(),
                      std::numeric_limits<double>::quiet_NaN(), -1e300}) {
    auto target = decide(options, seen(load, 2, 2)).target;
    CHECK((target >= 1 && target <= 5));
  }
}
