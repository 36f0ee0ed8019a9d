#include "router/policy/power_of_two.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <map>
#include <random>
#include <vector>

using namespace troupe::router;

TEST_CASE("no replica with room means no choice") {
  CHECK(!power_of_two({}, 7));
  std::vector<replica_snapshot> full{{4, 10, 4}, {2, 1, 2}};
  CHECK(!power_of_two(full, 7));
}

TEST_CASE("a full replica is never drawn") {
  std::vector<replica_snapshot> replicas{{4, 0, 4}, {100, 9000, 0}, {1, 0, 1}};
  std::mt19937_64 random{1};
  for (int i = 0; i < 100; ++i)
    CHECK(power_of_two(replicas, random()) == 1u);
}

TEST_CASE("of two replicas the one with fewer outstanding tokens wins") {
  std::vector<replica_snapshot> replicas{{1, 4000, 0}, {3, 90, 0}};
  std::mt19937_64 random{2};
  for (int i = 0; i < 100; ++i)
    CHECK(power_of_two(replicas, random()) == 1u);
}

TEST_CASE("with equal tokens the one with fewer choices wins") {
  std::vector<replica_snapshot> replicas{{2, 50, 0}, {1, 50, 0}};
  std::mt19937_64 random{3};
  for (int i = 0; i < 100; ++i)
    CHECK(power_of_two(replicas, random()) == 1u);
}

TEST_CASE("equal replicas are drawn about equally often") {
  std::vector<replica_snapshot> replicas(5);
  std::mt19937_64 random{4};
  std::map<std::size_t, int> drawn;
  for (int i = 0; i < 10'000; ++i)
    ++drawn[*power_of_two(replicas, random())];
  REQUIRE(drawn.size() == 5);
  for (auto [index, count] : drawn)
    CHECK((count > 1800 && count < 2200));
}

TEST_CASE("the most loaded of many is never chosen, the others are") {
  std::vector<replica_snapshot> replicas{
      {0, 10, 0}, {0, 20, 0}, {0, 30, 0}, {0, 40, 0}};
  std::mt19937_64 random{5};
  std::array<int, 4> drawn{};
  for (int i = 0; i < 6'000; ++i)
    ++drawn[*power_of_two(replicas, random())];
  CHECK(drawn[3] == 0);
  CHECK(drawn[0] > drawn[1]);
  CHECK(drawn[1] > drawn[2]);
  CHECK(drawn[2] > 0);
}
