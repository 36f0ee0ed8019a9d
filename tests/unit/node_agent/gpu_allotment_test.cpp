#include "actors/node_agent/gpu_allotment.hpp"

#include <catch2/catch.hpp>

using namespace troupe::node_agent;

TEST_CASE("whole GPUs are had by one replica at a time") {
  gpu_allotment gpus{{"0", "1", "GPU-abc"}};
  CHECK(gpus.take(1, 1).value() == "0");
  CHECK(gpus.take(2, 2).value() == "1,GPU-abc");
  auto none = gpus.take(3, 1);
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().message ==
        "0 of this node's 3 GPUs are free, 1 are asked for");
  gpus.give_back(2);
  gpus.give_back(3); // had nothing
  CHECK(gpus.take(3, 1).value() == "1");
  CHECK_FALSE(gpus.take(4, 2).has_value());
  CHECK(gpus.take(4, 1).value() == "GPU-abc");
}

TEST_CASE("parts of a GPU are had by several, and leave others whole") {
  gpu_allotment gpus{{"0", "1"}};
  CHECK(gpus.take(1, 0.25).value() == "0");
  CHECK(gpus.take(2, 0.5).value() == "0");
  CHECK(gpus.take(3, 0.5).value() == "1");
  CHECK(gpus.take(4, 0.25).value() == "0"); // the last quarter
  CHECK(gpus.take(5, 0.5).value() == "1");
  auto none = gpus.take(6, 0.1);
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().message == "no GPU of this node has 0.1 of it left");
  gpus.give_back(2);
  CHECK(gpus.take(6, 0.1).value() == "0");
  CHECK_FALSE(gpus.take(7, 1).has_value());
}

TEST_CASE("ten tenths of a GPU are one, and a little more than one is two") {
  gpu_allotment gpus{{"0", "1"}};
  for (std::uint64_t i = 0; i < 10; ++i)
    CHECK(gpus.take(1 + i, 0.1).value() == "0");
  CHECK(gpus.take(20, 1).value() == "1");
  for (std::uint64_t i = 0; i < 10; ++i)
    gpus.give_back(1 + i);
  gpus.give_back(20);
  CHECK(gpus.take(30, 1.5).value() == "0,1");
}

TEST_CASE("who asks for nothing gets nothing, and too much is refused") {
  gpu_allotment none;
  CHECK(none.take(1, 0).value().empty());
  CHECK_FALSE(none.take(1, 0.5).has_value());
  CHECK_FALSE(none.take(1, 1e300).has_value());
}
