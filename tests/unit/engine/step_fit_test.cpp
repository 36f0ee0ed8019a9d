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
  CHECK(one.fit.step_us() == 0);
  one.run({1, 8, 100, 512}, 4);
  CHECK(one.fit.seconds(64) == Approx(.042).epsilon(.02));
  CHECK(one.fit.step_us() == Approx(42'000).epsilon(.02));
  CHECK(one.fit.seconds(300) == Approx(.16).epsilon(.02));
}

TEST_CASE("steps of one size say what a usual engine takes for others") {
  timed one{16 * .0005, .0005};
  one.run({2}, 4);
  CHECK(one.fit.seconds(2) == Approx(.009).epsilon(.01));
  CHECK(one.fit.seconds(64) == Approx(.04).epsilon(.01));
}

TEST_CASE("equal engines with different work are not far apart") {
  // One step of theirs costs as much as 5 rows, or as 48.
  for (double step : {5., 48.}) {
    timed decodes{step * 1e-3, 1e-3}, reads = decodes;
    decodes.run({1, 2, 3}, 10);
    reads.run({400, 512}, 10);
    auto ratio = decodes.fit.seconds(64) / reads.fit.seconds(64);
    CHECK(ratio > 1. / 3);
    CHECK(ratio < 3);
  }
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
  CHECK(one.step_us() == 0);
  one.step(1, std::chrono::duration<double>{1e9});
  CHECK(one.step_us() > 0); // no overflow
}
