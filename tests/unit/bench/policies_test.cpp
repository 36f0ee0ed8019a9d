#include "bench/policies/summary.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdlib>
#include <fstream>

using namespace troupe;
using namespace troupe::bench;
using protocol::choice_policy;

namespace {

/// Conversations: each turn's prompt is all that was before and a block more.
load conversations(int count, int turns, double per_second) {
  load out;
  int number = 0;
  for (int turn = 1; turn <= turns; ++turn)
    for (int who = 0; who < count; ++who) {
      arrival one;
      one.at_s = number++ / per_second;
      one.block_tokens = 32;
      one.prompt_tokens = 32u * static_cast<std::uint32_t>(turn + 1) - 5;
      one.output_tokens = 3 + static_cast<std::uint32_t>(who) % 5;
      one.blocks.push_back(7); // what all begin with
      for (int block = 1; block <= turn; ++block)
        one.blocks.push_back(static_cast<std::uint64_t>(1000 * who + block));
      out.arrivals.push_back(std::move(one));
    }
  out.seconds = number / per_second;
  return out;
}

scenario small_fleet(choice_policy policy) {
  scenario out;
  out.replica.times = {.005, .001, .0001, 1e-7, 1e-7};
  out.replica.rows_max = 64;
  out.replica.context_max = 1024;
  out.replica.cache_tokens = 4096;
  out.replicas = 3;
  out.rule.policy = policy;
  out.expected_output = 8;
  return out;
}

std::uint64_t hits(const run_outcome& from) {
  std::uint64_t out = 0;
  for (const auto& one : from.requests)
    out += one.cached_tokens;
  return out;
}

void check_served(const load& what, const run_outcome& from) {
  REQUIRE(from.requests.size() == what.arrivals.size());
  for (std::size_t i = 0; i < what.arrivals.size(); ++i) {
    CHECK(from.requests[i].endings == 1);
    CHECK_FALSE(from.requests[i].failed);
    CHECK(from.requests[i].tokens == what.arrivals[i].output_tokens);
    CHECK(from.requests[i].first_token_s > 0);
    CHECK(from.requests[i].end_s >= from.requests[i].first_token_s);
  }
}

std::filesystem::path written(const std::string& name,
                              const std::string& text) {
  auto path = std::filesystem::temp_directory_path() / name;
  std::ofstream{path} << text;
  return path;
}

} // namespace

TEST_CASE("simulated fleet: every request is served once, by every policy") {
  auto what = conversations(12, 6, 20);
  for (auto policy : {choice_policy::power_of_two, choice_policy::round_robin,
                      choice_policy::prefix, choice_policy::kv_aware})
    for (std::uint32_t routers : {1u, 3u}) {
      auto how = small_fleet(policy);
      how.routers = routers;
      check_served(what, simulate(what, how));
    }
  auto how = small_fleet(choice_policy::power_of_two);
  how.random_choice = true;
  check_served(what, simulate(what, how));
}

TEST_CASE("simulated fleet: knowing the caches hits more, never beyond ideal") {
  auto what = conversations(12, 6, 8);
  auto how = small_fleet(choice_policy::kv_aware);
  auto aware = simulate(what, how);
  how.routers = 3;
  auto shared = simulate(what, how);
  how.random_choice = true;
  auto random = simulate(what, how);
  CHECK(hits(aware) > hits(random));
  CHECK(hits(shared) > hits(random));
  std::uint64_t ideal = 0;
  for (auto one : ideal_hits(what, how.replica.block_size))
    ideal += one;
  CHECK(hits(aware) <= ideal);
  CHECK(hits(random) > 0);
}

TEST_CASE("simulated fleet: the same seed gives the same figures") {
  auto what = conversations(12, 6, 40);
  auto how = small_fleet(choice_policy::power_of_two);
  how.routers = 2;
  how.scaling.emplace().max_replicas = 6;
  how.scaling->target_ongoing_requests = 2;
  auto of = [&] { return to_json(summarise(what, how, simulate(what, how))); };
  auto first = of();
  CHECK(first == of());
  how.seed = 2;
  CHECK(first != of());
}

TEST_CASE("simulated fleet: replicas follow the load up and down") {
  auto what = conversations(12, 20, 30);
  auto tail = what.arrivals.back();
  for (int i = 1; i <= 60; ++i) { // one request a second
    tail.at_s = what.seconds + i;
    what.arrivals.push_back(tail);
  }
  what.seconds += 60;
  auto how = small_fleet(choice_policy::power_of_two);
  how.replicas = 1;
  auto& scaling = how.scaling.emplace();
  scaling.max_replicas = 8;
  scaling.target_ongoing_requests = 2;
  scaling.downscale_delay_s = 5;
  auto outcome = simulate(what, how);
  check_served(what, outcome);
  auto most = std::max_element(
      outcome.sizes.begin(), outcome.sizes.end(),
      [](auto& one, auto& other) { return one.ready < other.ready; });
  CHECK(most->ready >= 3);
  CHECK(outcome.sizes.back().ready < most->ready);
  CHECK(outcome.replica_hours < 8 * what.seconds / 3600);
}

TEST_CASE("the oracle begins a birth ahead of the need") {
  load what;
  what.seconds = 40;
  for (int i = 0; i < 40; ++i) // much from the twentieth second on
    for (int k = 0; k < (i < 20 ? 1 : 10); ++k) {
      arrival one;
      one.at_s = i;
      one.prompt_tokens = one.block_tokens = 256;
      one.output_tokens = 8;
      one.blocks = {static_cast<std::uint64_t>(100 * i + k)};
      what.arrivals.push_back(one);
    }
  auto how = small_fleet(choice_policy::power_of_two);
  auto plan = plan_fleet(what, how.replica, {5, .8}, 10, 100);
  REQUIRE(plan.size() > 1);
  CHECK(plan.front().replicas == 1);
  CHECK(plan[1].from_s == 10);
  CHECK(plan[1].replicas > 1);
}

TEST_CASE("traces are read with their lengths divided and their sharing kept") {
  auto mooncake = read_mooncake(
      written("unit_bench.jsonl",
              "{\"timestamp\": 0, \"input_length\": 1024, \"output_length\": "
              "64, \"hash_ids\": [1, 2]}\n"
              "{\"timestamp\": 1500, \"input_length\": 1100, "
              "\"output_length\": 8, \"hash_ids\": [1, 3, 4]}\n"),
      {.divisor = 16});
  REQUIRE(mooncake.has_value());
  REQUIRE(mooncake->arrivals.size() == 2);
  auto& second = mooncake->arrivals[1];
  CHECK(second.at_s == 1.5);
  CHECK(second.prompt_tokens == 69);
  CHECK(second.output_tokens == 1);
  CHECK(repeated_blocks(*mooncake) == 1. / 5);
  auto one = prompt_of(mooncake->arrivals[0]);
  auto other = prompt_of(second);
  CHECK(std::equal(one.begin(), one.begin() + 32, other.begin()));
  CHECK_FALSE(std::equal(one.begin() + 32, one.end(), other.begin() + 32));
  CHECK(ideal_hits(*mooncake, 16) == std::vector<std::uint32_t>{0, 32});
  CHECK(pooled_hits(*mooncake, 16, 16) == std::vector<std::uint32_t>{0, 16});

  auto azure = read_azure(written("unit_bench.csv",
                                  "TIMESTAMP,ContextTokens,GeneratedTokens\n"
                                  "2023-11-16 18:59:59.5000000,374,44\n"
                                  "2023-11-16 19:00:01.0000000,90,10\n"),
                          {.divisor = 2});
  REQUIRE(azure.has_value());
  REQUIRE(azure->arrivals.size() == 2);
  CHECK(azure->arrivals[0].prompt_tokens == 187);
  CHECK(azure->arrivals[1].at_s == Approx(1.5));
  CHECK(azure->arrivals[1].output_tokens == 5);
  CHECK(read_azure("/nowhere", {}).has_error());
}

TEST_CASE("made loads have the rates that they are to have") {
  load like;
  like.arrivals.resize(1);
  like.arrivals[0].prompt_tokens = 10;
  auto what = poisson_load({{0, 2}, {500, 20}}, false, 1000, like, 3);
  auto before = std::count_if(what.arrivals.begin(), what.arrivals.end(),
                              [](auto& one) { return one.at_s < 500; });
  CHECK(before > 850);
  CHECK(before < 1150);
  auto after = static_cast<std::ptrdiff_t>(what.arrivals.size()) - before;
  CHECK(after > 9600);
  CHECK(after < 10400);
  CHECK(std::is_sorted(what.arrivals.begin(), what.arrivals.end(),
                       [](auto& a, auto& b) { return a.at_s < b.at_s; }));
}
