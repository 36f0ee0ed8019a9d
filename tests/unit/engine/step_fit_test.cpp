#include "engine/step_fit.hpp"

#include <catch2/catch.hpp>

#include <vector>

using namespace troupe::engine;

namespace {

/// Of an engine whose steps take (a + b x rows) seconds.
struct timed {
  double a, b;
  step_fit fit = {};

  void run(const std::vector<std::uint64_t>& sizes, double for_s) {
    for (double spent = 0; spent < for_s;)
      for (auto rows : sizes) {
        auto time = a + b * static_cast<double>(rows);
        fit.step(rows, std::chrono::duration<double>{time});
        spent += time;
      }
  }
};

} // namespace

TEST_CASE("the time of a step follows from steps of other sizes") {
  timed one{.01, .0005};
  CHECK(one.fit.few_rows_us() == 0);
  one.run({1, 8, 100, 512}, 4);
  CHECK(one.fit.seconds(64) == Approx(.042).epsilon(.02));
  CHECK(one.fit.few_rows_us() == Approx(12'000).epsilon(.02));
  CHECK(one.fit.many_rows_us() == Approx(138'000).epsilon(.02));
  CHECK(one.fit.seconds(300) == Approx(.16).epsilon(.02));
}

TEST_CASE("steps of one size say what a usual engine takes for others") {
  timed one{16 * .0005, .0005};
  one.run({2}, 4);
  CHECK(one.fit.seconds(2) == Approx(.009).epsilon(.01));
  CHECK(one.fit.seconds(64) == Approx(.04).epsilon(.01));
}

TEST_CASE("equal engines never look three times as slow for their work") {
  // One step of theirs costs as much as so many rows: bound by arithmetic, or
  // by memory.
  const std::vector<std::vector<std::uint64_t>> works{
      {1}, {1, 2, 3}, {16}, {32}, {64}, {100, 300}, {512}, {1, 512}};
  for (double step : {1., 16., 200.})
    for (const auto& some : works)
      for (const auto& others : works) {
        timed one{step * 1e-4, 1e-4}, other = one;
        one.run(some, 10);
        other.run(others, 10);
        auto compare = [&](std::uint32_t a, std::uint32_t b) {
          if (a != 0 && b != 0)
            CHECK(a < 3. * b);
        };
        INFO(step << ": " << some[0] << " rows, " << others[0]);
        compare(one.fit.few_rows_us(), other.fit.few_rows_us());
        compare(one.fit.many_rows_us(), other.fit.many_rows_us());
      }
}

TEST_CASE("of sizes that were not seen of late nothing is known") {
  timed one{.01, .0005};
  one.run({2, 3}, 4);
  CHECK(one.fit.few_rows_us() > 0);
  CHECK(one.fit.many_rows_us() == 0);
  one.run({200}, 20);
  CHECK(one.fit.few_rows_us() == 0);
  CHECK(one.fit.many_rows_us() > 0);
}

TEST_CASE("an engine that becomes slower shows it within seconds of steps") {
  timed one{.01, .0005};
  one.run({1, 4, 64}, 20);
  auto before = one.fit.seconds(64);
  one.a *= 5;
  one.b *= 5;
  one.run({1, 4, 64}, 4);
  CHECK(one.fit.seconds(64) > 3 * before);
  one.run({1, 4, 64}, 20);
  CHECK(one.fit.seconds(64) == Approx(5 * before).epsilon(.05));
}

TEST_CASE("a step of nothing or of no time says nothing") {
  step_fit one;
  one.step(0, std::chrono::duration<double>{1});
  one.step(5, std::chrono::duration<double>{0});
  CHECK(one.few_rows_us() == 0);
  one.step(4, std::chrono::duration<double>{1e9});
  CHECK(one.few_rows_us() > 0); // no overflow
}
