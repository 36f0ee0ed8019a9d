#include "actors/node_agent/gpu_allotment.hpp"

#include <catch2/catch.hpp>

using namespace troupe::node_agent;

TEST_CASE("GPUs are had as the head says, by one replica at a time") {
  gpu_allotment gpus{{"0", "1", "GPU-abc"}};
  CHECK(gpus.take(1, 1, {0}).value() == "0");
  CHECK(gpus.take(2, 2, {1, 2}).value() == "1,GPU-abc");
  CHECK(gpus.names_of(2) == std::vector<std::string>{"1", "GPU-abc"});
  auto none = gpus.take(3, 1, {1});
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().message == "GPU 1 of this node's 3 is not free for it");
  CHECK(gpus.names_of(3).empty());
  gpus.give_back(2);
  gpus.give_back(3); // had nothing
  CHECK(gpus.take(3, 1, {1}).value() == "1");
  CHECK_FALSE(gpus.take(4, 2, {2, 1}).has_value());
  CHECK(gpus.take(4, 1, {2}).value() == "GPU-abc");
}

TEST_CASE("parts of a GPU are had by several") {
  gpu_allotment gpus{{"0", "1"}};
  CHECK(gpus.take(1, 0.25, {1}).value() == "1");
  CHECK(gpus.take(2, 0.5, {1}).value() == "1");
  CHECK_FALSE(gpus.take(3, 0.5, {1}).has_value());
  CHECK_FALSE(gpus.take(3, 1, {1}).has_value());
  CHECK(gpus.take(3, 0.25, {1}).value() == "1");
  gpus.give_back(2);
  CHECK(gpus.take(4, 0.5, {1}).value() == "1");
}

TEST_CASE("a part of a replica has whole GPUs of this node, fewer than the "
          "replica") {
  gpu_allotment gpus{{"0", "1"}};
  CHECK(gpus.take(1, 5, {0, 1}).value() == "0,1");
  CHECK_FALSE(gpus.take(2, 0.1, {0}).has_value());
}

TEST_CASE("who asks for nothing gets nothing, and what is not there, or not "
          "named, is refused") {
  gpu_allotment none;
  CHECK(none.take(1, 0, {}).value().empty());
  CHECK_FALSE(none.take(1, 0.5, {0}).has_value());
  auto unnamed = none.take(1, 1, {});
  REQUIRE_FALSE(unnamed.has_value());
  CHECK(unnamed.error().message == "the head has not said which GPUs it gets");
}
