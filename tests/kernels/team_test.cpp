#include "engine/ops/cpu/team.hpp"

#include "engine/ops/cpu/cpu_backend.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <thread>

using namespace troupe;
using namespace troupe::ops;
using namespace troupe::ops::cpu;

TEST_CASE("a loop covers every index once, whatever the threads") {
  for (const int threads : {1, 2, 3, 7}) {
    const auto workers = team::make(threads).value();
    REQUIRE(workers->size() == threads);
    for (const int count : {0, 1, 2, 5, 100, 1000}) {
      for (int repeat = 0; repeat < 50; ++repeat) {
        std::vector<std::atomic<int>> seen(count);
        workers->run(count, [&](std::int64_t begin, std::int64_t end, int t) {
          if (t < 0 || t >= threads)
            std::abort();
          for (auto i = begin; i < end; ++i)
            seen[i].fetch_add(1);
        });
        for (const auto& times : seen)
          REQUIRE(times.load() == 1);
      }
    }
  }
}

TEST_CASE("a team that slept works again") {
  const auto workers = team::make(3).value();
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<std::int64_t> sum{0};
    workers->run(1000, [&](std::int64_t begin, std::int64_t end, int) {
      for (auto i = begin; i < end; ++i)
        sum += i;
    });
    CHECK(sum.load() == 499500);
  }
}

TEST_CASE("the kernels that TROUPE_CPU names are taken, others refused") {
  const char* before = std::getenv("TROUPE_CPU");
  const std::string kept = before == nullptr ? "" : before;
  setenv("TROUPE_CPU", "plain", 1);
  CHECK(make_backend({1, {}}).value()->description() == "plain, 1 thread");
  setenv("TROUPE_CPU", "avx3", 1);
  const auto refused = make_backend({1, {}});
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().message.find("avx3") != std::string::npos);
  CHECK(make_backend({1, instruction_set::plain}).has_value());
  setenv("TROUPE_CPU", kept.c_str(), 1);
}

TEST_CASE("what the machine lacks is refused by name") {
  for (const auto isa :
       {instruction_set::avx2, instruction_set::avx512, instruction_set::amx}) {
    const auto made = make_backend({1, isa});
    CHECK(made.has_value() == machine_has(isa));
    if (!made)
      CHECK(made.error().message.find("cannot run") != std::string::npos);
  }
  CHECK_FALSE(make_backend({-1, {}}).has_value());
  CHECK_FALSE(make_backend({100000, {}}).has_value());
}

TEST_CASE("all instruction sets are of one arithmetic class") {
  const auto plain = make_backend({1, instruction_set::plain}).value();
  const auto best = make_backend({2, {}}).value();
  CHECK(plain->arithmetic() == "cpu-q8a-bf16a-kv-3");
  CHECK(best->arithmetic() == plain->arithmetic());
}
