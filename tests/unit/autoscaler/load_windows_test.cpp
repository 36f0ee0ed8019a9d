#include "autoscaler/load_windows.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <random>
#include <vector>

using namespace troupe::autoscaler;
using namespace std::chrono_literals;

namespace {

constexpr time_point start{1h};

window_options window_of(double seconds,
                         aggregation function = aggregation::mean) {
  window_options out;
  out.look_back_period_s = seconds;
  out.aggregation_function = function;
  return out;
}

load_report replica(const char* name, std::uint64_t sequence,
                    std::uint32_t running, std::uint32_t queued = 0,
                    std::uint64_t incarnation = 7) {
  return {load_source::replica, name, incarnation, sequence, running, queued};
}

load_report router(const char* name, std::uint64_t sequence,
                   std::uint32_t running, std::uint32_t queued) {
  return {load_source::router, name, 7, sequence, running, queued};
}

} // namespace

TEST_CASE("no report is no load") {
  load_windows windows{window_of(10)};
  CHECK(windows.over_window(start).running == 0);
  CHECK(windows.over_window(start).queued == 0);
}

TEST_CASE("a report holds until the next and weighs by its time") {
  load_windows windows{window_of(10)};
  REQUIRE(windows.hear(replica("a", 1, 4, 1), start));
  CHECK(windows.over_window(start).running == 4); // the window is a moment
  REQUIRE(windows.hear(replica("a", 2, 10, 1), start + 3s));
  // 3 s of 4 and 1 s of 10.
  CHECK(windows.over_window(start + 4s).running == Approx(22.0 / 4));
  CHECK(windows.over_window(start + 4s).queued == Approx(1));
}

TEST_CASE("what was before the window holds at its start") {
  load_windows windows{window_of(4)};
  windows.hear(replica("a", 1, 100), start);
  windows.hear(replica("a", 2, 4), start + 2s);
  windows.hear(replica("a", 3, 8), start + 7s);
  // From 5 s to 7 s it is 4, to 9 s it is 8; the 100 are forgotten.
  CHECK(windows.over_window(start + 9s).running == Approx(6));
}

TEST_CASE("sources add up, a new one from its first report on") {
  load_windows windows{window_of(10)};
  windows.hear(replica("a", 1, 4), start);
  windows.hear(replica("b", 1, 6), start + 2s);
  // 2 s of 4 and 2 s of 10.
  CHECK(windows.over_window(start + 4s).running == Approx(7));
}

TEST_CASE("the greatest and the least sum can be asked for") {
  load_windows most{window_of(10, aggregation::max)};
  load_windows least{window_of(10, aggregation::min)};
  for (auto* windows : {&most, &least}) {
    windows->hear(replica("a", 1, 4), start);
    windows->hear(replica("b", 1, 6), start);
    windows->hear(replica("a", 2, 1), start + 1s);
    windows->hear(replica("b", 2, 20), start + 2s);
    windows->hear(replica("a", 3, 5), start + 2s);
  }
  CHECK(most.over_window(start + 3s).running == 25);
  CHECK(least.over_window(start + 3s).running == 7); // never 0, never 21
}

TEST_CASE("without a look back the latest reports count") {
  load_windows windows{window_of(0)};
  windows.hear(replica("a", 1, 4), start);
  windows.hear(replica("a", 2, 9), start + 1s);
  windows.hear(replica("b", 1, 1), start + 1s);
  CHECK(windows.over_window(start + 2s).running == 10);
}

TEST_CASE("late and doubled reports change nothing, a lost one is mended") {
  load_windows windows{window_of(10)};
  REQUIRE(windows.hear(replica("a", 5, 4), start));
  CHECK(!windows.hear(replica("a", 5, 90), start + 1s));
  CHECK(!windows.hear(replica("a", 4, 90), start + 1s));
  CHECK(windows.over_window(start + 2s).running == Approx(4));
  // 6 and 7 are lost.
  CHECK(windows.hear(replica("a", 8, 8), start + 2s));
  CHECK(windows.over_window(start + 4s).running == Approx(6));
}

TEST_CASE("a new life of a source begins anew, the old one is not heard") {
  load_windows windows{window_of(10)};
  windows.hear(replica("a", 900, 50, 0, 1), start);
  CHECK(windows.hear(replica("a", 1, 2, 0, 2), start + 1s));
  CHECK(!windows.hear(replica("a", 901, 50, 0, 1), start + 2s));
  CHECK(windows.over_window(start + 3s).running == Approx(2));
}

TEST_CASE("a source that left does not count until it says something newer") {
  load_windows windows{window_of(10)};
  windows.hear(replica("a", 1, 50, 0, 1), start);
  windows.hear(replica("b", 1, 3, 0, 1), start);
  windows.leave(load_source::replica, "a", 2); // another life: nothing
  windows.leave(load_source::router, "a", 1);  // another kind: nothing
  CHECK(windows.over_window(start + 1s).running == Approx(53));
  windows.leave(load_source::replica, "a", 1);
  CHECK(windows.over_window(start + 1s).running == Approx(3));
  CHECK(!windows.hear(replica("a", 1, 50, 0, 1), start + 1s)); // late
  CHECK(windows.over_window(start + 1s).running == Approx(3));
  SECTION("in the same life, without its past") {
    CHECK(windows.hear(replica("a", 2, 4, 0, 1), start + 2s));
    CHECK(windows.over_window(start + 2s).running == Approx(3));
    CHECK(windows.over_window(start + 4s).running == Approx(3 + 4 * 2 / 4.0));
  }
  SECTION("in another one; then the earlier one is not heard") {
    CHECK(windows.hear(replica("a", 1, 4, 0, 2), start + 1s));
    CHECK(!windows.hear(replica("a", 3, 50, 0, 1), start + 1s));
  }
}

TEST_CASE("a silent source counts for two intervals, 10 s at least") {
  window_options options = window_of(60);
  for (auto [interval, limit] : {std::pair{1.0, 10s}, std::pair{20.0, 40s}}) {
    options.metrics_interval_s = interval;
    load_windows windows{options};
    windows.hear(replica("a", 1, 4), start);
    CHECK(windows.over_window(start + limit).running == Approx(4));
    CHECK(windows.over_window(start + limit + 1ms).running == 0);
    // Back again it has no past: nobody knows what it did meanwhile.
    windows.hear(replica("a", 2, 1), start + limit + 1s);
    CHECK(windows.over_window(start + limit + 2s).running == Approx(1));
  }
}

TEST_CASE("a source that says the same again is not stale") {
  load_windows windows{window_of(10)};
  for (int i = 0; i < 100; ++i)
    REQUIRE(windows.hear(replica("a", i + 1, 4), start + i * 1s));
  CHECK(windows.over_window(start + 100s).running == Approx(4));
}

TEST_CASE("running comes from the replicas if any report") {
  load_windows windows{window_of(10)};
  windows.hear(router("r", 1, 5, 2), start);
  CHECK(windows.over_window(start + 1s).running == Approx(5));
  windows.hear(replica("a", 1, 4, 3), start);
  CHECK(windows.over_window(start + 1s).running == Approx(4));
  CHECK(windows.over_window(start + 1s).queued == Approx(5));
  windows.leave(load_source::replica, "a", 7);
  CHECK(windows.over_window(start + 1s).running == Approx(5));
}

TEST_CASE("more sources than there is room for are refused, stale ones go") {
  load_windows windows{window_of(10)};
  auto name = [](std::size_t i) { return "s" + std::to_string(i); };
  for (std::size_t i = 0; i < load_windows::sources_max; ++i)
    REQUIRE(windows.hear(replica(name(i).c_str(), 1, 1), start));
  CHECK(!windows.hear(replica("one more", 1, 1), start + 1s));
  CHECK(windows.over_window(start + 1s).running ==
        Approx(load_windows::sources_max));
  CHECK(windows.hear(replica("one more", 1, 1), start + 21s));
  CHECK(windows.over_window(start + 21s).running == Approx(1));
}

TEST_CASE("reports that come fast are thinned and the latest stands") {
  load_windows windows{window_of(10)};
  std::mt19937_64 random{8};
  double area = 0;
  std::uint32_t value = 0;
  for (int i = 0; i < 10'000; ++i) { // one a millisecond
    value = random() % 100;
    area += value;
    windows.hear(replica("a", i + 1, value), start + i * 1ms);
  }
  CHECK(windows.samples() <= 2 * load_windows::samples_of_window + 2);
  CHECK(windows.samples() >= load_windows::samples_of_window / 2);
  auto end = start + 10s;
  // About 500 of 10,000 samples of a uniform draw: within 10 % of the mean.
  CHECK(windows.over_window(end).running == Approx(area / 10'000).epsilon(0.1));
  load_windows latest{window_of(0)};
  latest.hear(replica("a", 1, 3), start);
  latest.hear(replica("a", 2, value), start);
  CHECK(latest.over_window(start).running == value);
}

TEST_CASE("lost, late and doubled reports end in the same load") {
  std::mt19937_64 random{9};
  for (int round = 0; round < 200; ++round) {
    std::vector<load_report> sent;
    for (std::uint64_t i = 1; i <= 20; ++i)
      sent.push_back(replica("a", i, random() % 50, random() % 50));
    auto heard = sent;
    for (int i = 0; i < 10; ++i) // some come twice, some not at all
      heard[random() % heard.size()] = sent[random() % sent.size()];
    std::shuffle(heard.begin(), heard.end(), random);
    heard.push_back(sent.back());
    load_windows windows{window_of(5)};
    auto now = start;
    for (const auto& report : heard)
      windows.hear(report, now += 100ms);
    auto out = windows.over_window(now + 8s);
    REQUIRE(out.running == Approx(sent.back().running));
    REQUIRE(out.queued == Approx(sent.back().queued));
  }
}
