#include "engine/memory_plan.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::engine;

namespace {

memory_demand demand() {
  return {.block_bytes = 1000,
          .block_size = 10,
          .max_num_seqs = 4,
          .max_model_len = 100,
          .available_bytes = 1'000'000};
}

} // namespace

TEST_CASE("the KV cache is no larger than the sequences can fill") {
  CHECK(plan_memory(demand()).value().kv_blocks == 40);
}

TEST_CASE("the KV cache takes a quarter of the available memory at most") {
  memory_demand d = demand();
  d.available_bytes = 80'000;
  CHECK(plan_memory(d).value().kv_blocks == 20);
}

TEST_CASE("a size that is asked for is kept") {
  memory_demand d = demand();
  d.available_bytes = 0;
  d.kv_cache_bytes_asked = 30'500;
  CHECK(plan_memory(d).value().kv_blocks == 30);
}

TEST_CASE("the model's length is cut to what fits") {
  memory_demand d = demand();
  d.kv_cache_bytes_asked = 7'000;
  CHECK(plan_memory(d).value().max_model_len == 70);
}

TEST_CASE("a length that is asked for is kept or refused") {
  memory_demand d = demand();
  d.max_model_len_asked = 50;
  CHECK(plan_memory(d).value().max_model_len == 50);
  CHECK(plan_memory(d).value().kv_blocks == 20);
  d.kv_cache_bytes_asked = 4'000;
  CHECK(plan_memory(d).error().code == errc::limit);
  d.max_model_len_asked = 101;
  CHECK(plan_memory(d).error().code == errc::invalid_argument);
}

TEST_CASE("memory for not even one block is an error") {
  memory_demand d = demand();
  d.available_bytes = 3'000;
  CHECK(plan_memory(d).has_error());
}

TEST_CASE("a share of the memory is for weights, activations and KV cache") {
  memory_demand d = demand();
  d.available_bytes = 100'000;
  d.utilization_asked = 0.5;
  d.other_bytes = 20'000;
  CHECK(plan_memory(d).value().kv_blocks == 30);
  d.kv_cache_bytes_asked = 10'000;
  CHECK(plan_memory(d).value().kv_blocks == 10);
  d.kv_cache_bytes_asked = 0;
  d.other_bytes = 60'000;
  auto nothing_left = plan_memory(d);
  CHECK(nothing_left.error().code == errc::limit);
  CHECK(nothing_left.error().message.find("gpu_memory_utilization") == 0);
}

TEST_CASE("the available memory of this machine can be read") {
  CHECK(available_memory_bytes() > 1 << 20);
}

TEST_CASE("a part of a GPU is a part of its memory, as far as it is free") {
  CHECK(gpu_budget(1000, 900, 0) == 900);
  CHECK(gpu_budget(1000, 900, 1) == 900);
  CHECK(gpu_budget(1000, 900, 0.25) == 250);
  CHECK(gpu_budget(1000, 100, 0.25) == 100);
}
