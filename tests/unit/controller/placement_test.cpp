#include "actors/controller/placement.hpp"

#include <catch2/catch.hpp>

using namespace troupe::controller;

namespace {

node_room room(const std::string& name, amounts free, amounts total = {}) {
  node_room out;
  out.node = name;
  out.total = total.empty() ? free : total;
  out.free = std::move(free);
  out.engines = {"cpu"};
  out.gpus = gpus_of(out.total);
  return out;
}

replica_demand demand(std::vector<amounts> bundles,
                      placement_strategy how = placement_strategy::pack,
                      std::uint32_t nodes_max = 1) {
  replica_demand out;
  out.bundles = std::move(bundles);
  out.strategy = how;
  out.nodes_max = nodes_max;
  return out;
}

using names = std::vector<std::string>;
using enum placement_strategy;

} // namespace

TEST_CASE("the node with fewest of the model wins, then most room, then name") {
  auto a = room("a", {{"CPU", 4}});
  auto b = room("b", {{"CPU", 8}});
  auto c = room("c", {{"CPU", 8}});
  auto wants = demand({{{"CPU", 1}}});
  CHECK(place(wants, {a, b, c}).nodes == names{"b"});
  b.replicas_of_model = 1;
  CHECK(place(wants, {a, b, c}).nodes == names{"c"});
  c.replicas_of_model = 1;
  CHECK(place(wants, {a, b, c}).nodes == names{"a"});
  auto nothing = demand({{}});
  a.replicas = 3;
  CHECK(place(nothing, {a, room("d", {{"CPU", 1}})}).nodes == names{"d"});
}

TEST_CASE("fractions that add up to a whole fit in it") {
  auto rooms = std::vector{room("a", {{"CPU", 1}})};
  auto placed = place(demand({{{"CPU", 0.1}}}), rooms, 11);
  REQUIRE(placed.size() == 11);
  CHECK(placed[9].nodes == names{"a"});
  CHECK(placed[10].nodes.empty());
  CHECK(placed[10].reason == "bundle 1 (CPU 0.1): a has 0 of 1 CPU free");
}

TEST_CASE("a refusal names the bundle, the nodes and the amounts") {
  auto head = room("head", {{"CPU", 1.5}}, {{"CPU", 2}});
  auto w1 = room("w1", {{"CPU", 9}});
  w1.replicas_of_model = 1;
  auto w2 = room("w2", {{"CPU", 5}});
  auto w3 = room("w3", {{"CPU", 9}});
  w3.engines = {"cuda"};
  auto wants = demand({{{"CPU", 4}}, {{"CPU", 2}, {"memory", 1 << 30}}});
  wants.replicas_per_node_max = 1;
  CHECK(place(wants, {head, w1, w2, w3}).reason ==
        "bundle 1 (CPU 4): head has 1.5 of 2 CPU free; "
        "w1: max_replicas_per_node is 1; bundle 2 (CPU 2, memory 1 GiB): w2 "
        "has 1 of 5 CPU free; w3 has no cpu engine");
  CHECK(place(demand({{{"fpga", 1}}}), {head}).reason ==
        "bundle 1 (fpga 1): head has no fpga");
  std::vector<node_room> many;
  for (int i = 0; i < 20; ++i)
    many.push_back(room("n" + std::to_string(i), {{"CPU", 1}}));
  auto reason = place(wants, many).reason;
  CHECK(reason.ends_with("n7 has 1 of 1 CPU free; and 12 more nodes"));
  CHECK(place(wants, std::vector<node_room>{}).reason ==
        "no node has joined yet");
}

TEST_CASE("on one node all bundles fit together or not at all") {
  auto two = demand({{{"CPU", 2}}, {{"CPU", 2}}});
  auto small = room("small", {{"CPU", 3}});
  auto big = room("big", {{"CPU", 4}});
  for (auto how : {pack, strict_pack, spread}) {
    two.strategy = how;
    CHECK(place(two, {small, big}).nodes == names{"big", "big"});
    CHECK(place(two, {small}).reason ==
          "bundle 2 (CPU 2): small has 1 of 3 CPU free");
  }
  two.strategy = strict_spread;
  CHECK(place(two, {small, big}).reason ==
        "STRICT_SPREAD wants a node for each of 2 bundles, and a replica can "
        "span only 1 (several where `troupe: {data_network: trusted}` says so, "
        "and tensor_parallel_size is the number of bundles)");
  CHECK(place(demand({{{"CPU", 2}}}, strict_spread), {small}).nodes ==
        names{"small"});
}

TEST_CASE("bundles go over several nodes where a replica may span them") {
  auto a = room("a", {{"CPU", 4}});
  auto b = room("b", {{"CPU", 4}});
  auto c = room("c", {{"CPU", 1}});
  auto three = std::vector<amounts>{{{"CPU", 2}}, {{"CPU", 2}}, {{"CPU", 2}}};
  CHECK(place(demand(three, pack, 3), {a, b, c}).nodes == names{"a", "a", "b"});
  CHECK(place(demand(three, strict_pack, 3), {a, b, c}).nodes.empty());
  CHECK(place(demand(three, pack, 3), {a, c}).nodes.empty());
  auto two = std::vector<amounts>{{{"CPU", 1}}, {{"CPU", 4}}};
  CHECK(place(demand(two, strict_spread, 2), {a, c}).nodes == names{"c", "a"});
  CHECK(place(demand(two, strict_spread, 2), {a}).nodes.empty());
  CHECK(place(demand({{{"CPU", 1}}, {{"CPU", 1}}}, spread, 2), {a}).nodes ==
        names{"a", "a"});
  CHECK(place(demand({{{"CPU", 1}}, {{"CPU", 1}}}, pack, 2), {a, b}).nodes ==
        names{"a", "a"});
  auto each = place(demand(two, spread, 2), {a, b, c}, 5);
  REQUIRE(each.size() == 2); // the second finds no node with four
  CHECK(each[0].nodes == names{"b", "a"});
  CHECK(each[1].nodes.empty());
  CHECK(each[1].reason.starts_with("2 bundles over at most 2 nodes: "));
}

TEST_CASE("replicas placed together leave room as if placed one by one") {
  std::vector<node_room> rooms;
  for (int i = 0; i < 5; ++i)
    rooms.push_back(room("n" + std::to_string(i), {{"CPU", 1.0 + i}}));
  auto wants = demand({{{"CPU", 1}}});
  auto together = place(wants, rooms, 16);
  REQUIRE(together.size() == 16);
  for (int i = 0; i < 15; ++i) {
    auto one = place(wants, rooms);
    REQUIRE(together[i].nodes == one.nodes);
    for (auto& each : rooms)
      if (each.node == one.nodes[0]) {
        each.free["CPU"] -= 1;
        ++each.replicas_of_model;
        ++each.replicas;
      }
  }
  CHECK(together[15].reason == place(wants, rooms).reason);
}

TEST_CASE("a replica gets a whole GPU of one node for each rank, or none") {
  auto with_gpus = room("n1", {{"GPU", 4}});
  with_gpus.engines = {"cpu", "cuda"};
  auto wants = demand({{{"GPU", 1}}, {{"GPU", 0.5}}});
  wants.engine = "cuda";
  auto none = place(wants, {with_gpus});
  CHECK(none.nodes.empty());
  CHECK(none.reason == "a replica of tensor_parallel_size 1 computes on 1 "
                       "whole GPU, 1.5 are asked for");
  CHECK_FALSE(takes(with_gpus, wants));
  wants.bundles.pop_back();
  CHECK_FALSE(place(wants, {with_gpus}).nodes.empty());

  wants.ranks = 2;
  wants.bundles.assign(2, {{"GPU", 1}});
  auto older = with_gpus;
  older.knows_parts = false;
  CHECK_FALSE(place(wants, {with_gpus}).nodes.empty());
  CHECK(place(wants, {older}).nodes.empty());
  CHECK(place(wants, {older}).reason ==
        older.node + " is too old for ranks on GPUs");
  for (std::vector<amounts> wrong :
       {std::vector<amounts>{{{"GPU", 1}}},
        {{{"GPU", 1.5}}, {{"GPU", 0.5}}},
        {{{"GPU", 1}}, {{"GPU", 1}}, {{"GPU", 1}}}}) {
    wants.bundles = wrong;
    none = place(wants, {with_gpus});
    CHECK(none.nodes.empty());
    CHECK(none.reason.find("tensor_parallel_size 2 computes on 2 whole GPUs, "
                           "") != std::string::npos);
  }
  for (std::vector<amounts> right :
       {std::vector<amounts>{{{"GPU", 1}}, {{"GPU", 1}}}, {{{"GPU", 2}}}})
    for (auto how : {placement_strategy::pack, placement_strategy::strict_pack,
                     placement_strategy::spread}) {
      wants.bundles = right;
      wants.strategy = how;
      auto there = place(wants, {with_gpus});
      REQUIRE(there.nodes.size() == right.size());
      CHECK(there.nodes.back() == "n1");
      auto small = with_gpus;
      small.free["GPU"] = 1;
      small.gpus.take({0, 1, 2}, 3);
      auto few = place(wants, {small});
      CHECK(few.nodes.empty());
      CHECK(few.reason.find("n1 has") != std::string::npos);
    }
}
