#include "autoscaler/node_plan.hpp"

#include <catch2/catch.hpp>

#include <fmt/format.h>
#include <random>

using namespace troupe;
using namespace troupe::autoscaler;
using namespace std::chrono_literals;

namespace {

constexpr double gibibyte = 1 << 30;

node_type a_type(const std::string& name, controller::amounts resources,
                 std::uint32_t min = 0, std::uint32_t max = 10) {
  return {name, std::move(resources), {"cpu"}, min, max};
}

protocol::node_demand a_demand(const std::string& model, std::uint32_t replicas,
                               const controller::amounts& bundle) {
  protocol::node_demand out;
  out.application = "app";
  out.model = model;
  out.replicas = replicas;
  out.strategy = "PACK";
  out.engine = "cpu";
  protocol::resource_bundle one;
  for (const auto& [name, amount] : bundle)
    one.amounts.push_back({name, amount});
  out.bundles = {one};
  return out;
}

controller::node_room a_room(const std::string& name,
                             controller::amounts total) {
  return {name, total, total, {"cpu"}, 0, 0, true, controller::gpus_of(total)};
}

node_situation situation(std::vector<node_type> types,
                         std::vector<protocol::node_demand> demands = {}) {
  node_situation out;
  out.types = std::move(types);
  out.demands = std::move(demands);
  out.max_workers = 100;
  return out;
}

using asked = std::map<std::string, std::uint32_t>;

/// What is asked for and nothing else of it.
asked ask(const node_situation& in) {
  auto out = plan_nodes(in).ask;
  std::erase_if(out, [](const auto& entry) { return entry.second == 0; });
  return out;
}

} // namespace

TEST_CASE("a replica that may span nodes gets as many as it takes together") {
  auto wide = a_demand("a", 1, {{"CPU", 2}});
  wide.bundles.assign(3, wide.bundles.front());
  auto in = situation({a_type("small", {{"CPU", 2}})}, {wide});
  CHECK(ask(in).empty()); // it may not
  in.demands[0].nodes_max = 3;
  CHECK(ask(in) == asked{{"small", 3}});
  in.max_workers = 2;
  CHECK(ask(in).empty()); // two of them would be of no use
  in.max_workers = 100;
  // With room that there is, fewer; of those on their way, none.
  in.rooms = {a_room("head", {{"CPU", 3}})};
  CHECK(ask(in) == asked{{"small", 2}});
  in.rooms.clear();
  in.nodes = {{"n1", "small", true, {}}, {"n2", "small", true, {}}};
  CHECK(ask(in) == asked{{"small", 1}});
  in.nodes.push_back({"n3", "small", true, {}});
  CHECK(ask(in).empty());
  in.nodes.clear();
  in.types.push_back(a_type("big", {{"CPU", 6}}));
  CHECK(ask(in) == asked{{"big", 1}}); // one that takes it whole
  in.types.pop_back();
  in.demands[0].bundles.assign(8, wide.bundles.front());
  in.demands[0].nodes_max = 8;
  CHECK(ask(in) == asked{{"small", 5}}); // no more at once
  for (int i = 0; i < 5; ++i)
    in.nodes.push_back({fmt::format("n{}", i), "small", true, {}});
  CHECK(ask(in).empty());
  for (auto& node : in.nodes) {
    node.comes = false;
    in.rooms.push_back(a_room(node.node, {{"CPU", 2}}));
  }
  CHECK(ask(in) == asked{{"small", 3}});
}

TEST_CASE("a replica with a GPU for each rank has a node that has them all") {
  auto one = a_type("one", {{"GPU", 1}}), four = a_type("four", {{"GPU", 4}});
  one.engines = four.engines = {"cpu", "cuda"};
  auto demand = a_demand("m", 1, {{"GPU", 1}});
  demand.engine = "cuda";
  demand.ranks = 2;
  demand.bundles.push_back(demand.bundles.front());
  CHECK(ask(situation({one, four}, {demand})) == asked{{"four", 1}});
  demand.ranks = 1; // then these are too many
  CHECK(ask(situation({one, four}, {demand})).empty());
}

TEST_CASE("demands are packed into the types that there are") {
  struct row {
    const char* name;
    std::vector<node_type> types;
    std::vector<protocol::node_demand> demands;
    asked wanted;
  };
  auto small = a_type("small", {{"CPU", 2}, {"memory", 4 * gibibyte}});
  auto big = a_type("big", {{"CPU", 8}, {"memory", 16 * gibibyte}});
  auto gpu = a_type("gpu", {{"CPU", 8}, {"GPU", 4}});
  auto fpga = a_type("fpga", {{"CPU", 2}, {"fpga", 1}});
  std::vector<row> table{
      {"nothing lacks", {small}, {}, {}},
      {"one fits one",
       {small},
       {a_demand("a", 1, {{"CPU", 2}})},
       {{"small", 1}}},
      {"two fit one",
       {small},
       {a_demand("a", 2, {{"CPU", 1}})},
       {{"small", 1}}},
      {"three take two",
       {small},
       {a_demand("a", 3, {{"CPU", 1}})},
       {{"small", 2}}},
      {"too large for all", {small}, {a_demand("a", 1, {{"CPU", 3}})}, {}},
      {"only the big one takes it",
       {small, big},
       {a_demand("a", 1, {{"CPU", 3}})},
       {{"big", 1}}},
      {"the small one wastes less",
       {big, small},
       {a_demand("a", 1, {{"CPU", 2}})},
       {{"small", 1}}},
      {"the big one wastes nothing when it is full",
       {small, big},
       {a_demand("a", 2, {{"CPU", 4}})},
       {{"big", 1}}},
      {"a large one first, small ones beside it",
       {small, big},
       {a_demand("a", 1, {{"CPU", 1}}), a_demand("b", 1, {{"CPU", 7}})},
       {{"big", 1}}},
      {"no GPU for who needs none",
       {gpu, big},
       {a_demand("a", 1, {{"CPU", 8}})},
       {{"big", 1}}},
      {"a GPU if nothing else takes it",
       {gpu, small},
       {a_demand("a", 1, {{"CPU", 8}})},
       {{"gpu", 1}}},
      {"GPUs are shared",
       {gpu, big},
       {a_demand("a", 8, {{"GPU", 1}})},
       {{"gpu", 2}}},
      {"a part of a GPU is of one GPU",
       {a_type("two", {{"GPU", 2}})},
       {a_demand("a", 5, {{"GPU", 0.6}})},
       {{"two", 3}}},
      {"resources of one's own",
       {small, fpga},
       {a_demand("a", 2, {{"fpga", 1}})},
       {{"fpga", 2}}},
      {"no rare resource for who needs none",
       {fpga, small},
       {a_demand("a", 1, {{"CPU", 2}})},
       {{"small", 1}}},
      {"memory counts",
       {small, big},
       {a_demand("a", 1, {{"CPU", 1}, {"memory", 5 * gibibyte}})},
       {{"big", 1}}},
      {"two kinds of demand, two types",
       {small, fpga},
       {a_demand("a", 1, {{"CPU", 2}}),
        a_demand("b", 1, {{"CPU", 1}, {"fpga", 1}})},
       {{"small", 1}, {"fpga", 1}}},
      {"two models that want the same share a node",
       {a_type("middle", {{"CPU", 5}}), a_type("large", {{"CPU", 8}})},
       {a_demand("a", 1, {{"CPU", 4}}), a_demand("b", 1, {{"CPU", 4}})},
       {{"large", 1}}},
      {"two kinds of demand, one node",
       {small, fpga},
       {a_demand("a", 1, {{"CPU", 2}}), a_demand("b", 1, {{"fpga", 1}})},
       {{"fpga", 1}}},
  };
  for (const auto& row : table) {
    INFO(row.name);
    CHECK(ask(situation(row.types, row.demands)) == row.wanted);
  }
}

TEST_CASE("all bundles of a replica go to one node, STRICT_SPREAD to none") {
  auto in =
      situation({a_type("small", {{"CPU", 2}}), a_type("big", {{"CPU", 4}})},
                {a_demand("a", 1, {{"CPU", 2}})});
  in.demands[0].bundles.push_back(in.demands[0].bundles[0]);
  CHECK(ask(in) == asked{{"big", 1}});
  in.demands[0].strategy = "STRICT_SPREAD";
  CHECK(ask(in).empty());
}

TEST_CASE("max_replicas_per_node and the engine are kept in mind") {
  auto in = situation({a_type("big", {{"CPU", 8}})},
                      {a_demand("a", 2, {{"CPU", 1}})});
  in.rooms = {a_room("head", {{"CPU", 8}})};
  CHECK(ask(in).empty());
  in.demands[0].replicas_per_node_max = 1;
  in.demands[0].here = {{"head", 1}};
  CHECK(ask(in) == asked{{"big", 2}});
  in.demands[0].engine = "cuda";
  CHECK(ask(in).empty());
}

TEST_CASE("what comes already is not asked for twice") {
  auto in = situation({a_type("small", {{"CPU", 2}})},
                      {a_demand("a", 3, {{"CPU", 2}})});
  in.nodes = {{"n1", "small", true, {}}, {"n2", "small", true, {}}};
  auto plan = plan_nodes(in);
  CHECK(plan.ask == asked{{"small", 1}});
  CHECK(plan.needed.contains("n1"));
  CHECK(plan.needed.contains("n2"));
  in.nodes.push_back({"n3", "small", true, {}});
  CHECK(ask(in).empty());
}

TEST_CASE("bounds: of a type, of all, at once") {
  auto in = situation({a_type("small", {{"CPU", 2}}, 0, 3)},
                      {a_demand("a", 50, {{"CPU", 2}})});
  CHECK(ask(in) == asked{{"small", 3}});
  in.types[0].max_workers = 100;
  CHECK(ask(in) == asked{{"small", 5}});
  in.nodes = {{"n1", "small", true, {}}, {"n2", "small", true, {}}};
  CHECK(ask(in) == asked{{"small", 3}});
  in.nodes.clear();
  for (int i = 0; i < 8; ++i)
    in.rooms.push_back(a_room(fmt::format("r{}", i), {}));
  CHECK(ask(in) == asked{{"small", 8}});
  in.upscaling_speed = 2;
  CHECK(ask(in) == asked{{"small", 16}});
  in.max_workers = 7;
  CHECK(ask(in) == asked{{"small", 7}});
  in.nodes = {{"n1", "small", true, {}}, {"n2", "small", true, {}}};
  CHECK(ask(in) == asked{{"small", 5}});
  in.upscaling_speed = 0;
  CHECK(ask(in) == asked{{"small", 3}});
}

TEST_CASE("a type that rests is left out, another that fits is taken") {
  auto in =
      situation({a_type("small", {{"CPU", 2}}), a_type("big", {{"CPU", 8}})},
                {a_demand("a", 1, {{"CPU", 2}})});
  CHECK(ask(in) == asked{{"small", 1}});
  in.resting = {"small"};
  CHECK(ask(in) == asked{{"big", 1}});
  in.resting = {"small", "big"};
  CHECK(ask(in).empty());
}

TEST_CASE("the minimum of each type is kept and takes demands") {
  auto in = situation(
      {a_type("small", {{"CPU", 2}}, 2), a_type("big", {{"CPU", 8}})});
  CHECK(ask(in) == asked{{"small", 2}});
  in.nodes = {{"n1", "small", false, 1h}};
  in.rooms = {a_room("n1", {{"CPU", 2}})};
  CHECK(ask(in) == asked{{"small", 1}});
  in.demands = {a_demand("a", 2, {{"CPU", 2}})};
  CHECK(ask(in) == asked{{"small", 1}});
  in.resting = {"small"};
  CHECK(ask(in) == asked{{"big", 1}});
  in.max_workers = 1;
  CHECK(ask(in).empty());
}

TEST_CASE("idle nodes end after their time, the longest idle first") {
  auto in = situation({a_type("small", {{"CPU", 2}}, 1)});
  in.idle_timeout = 60s;
  in.nodes = {{"n1", "small", false, 70s},
              {"n2", "small", false, 90s},
              {"n3", "small", false, 80s},
              {"n4", "small", false, std::nullopt}};
  for (const auto& node : in.nodes)
    in.rooms.push_back(a_room(node.node, {{"CPU", 2}}));
  in.rooms.back().free = {{"CPU", 0}};
  using names = std::vector<std::string>;
  CHECK(plan_nodes(in).end == names{"n2", "n3", "n1"});
  in.types[0].min_workers = 3;
  CHECK(plan_nodes(in).end == names{"n2"});
  in.types[0].min_workers = 4;
  CHECK(plan_nodes(in).end.empty());
  in.types[0].min_workers = 1;
  in.idle_timeout = 75s;
  CHECK(plan_nodes(in).end == names{"n2", "n3"});

  SECTION("one that a demand needs is kept") {
    in.idle_timeout = 60s;
    in.demands = {a_demand("a", 2, {{"CPU", 2}})};
    auto plan = plan_nodes(in);
    CHECK(plan.ask.empty());
    CHECK(plan.needed.size() == 2);
    CHECK(plan.end.size() == 1);
  }
  SECTION("one of too many need only be idle") {
    in.idle_timeout = 1h;
    in.types[0].max_workers = 3;
    CHECK(plan_nodes(in).end == names{"n2"});
    in.types[0].max_workers = 4;
    CHECK(plan_nodes(in).end.empty());
    in.max_workers = 2;
    CHECK(plan_nodes(in).end == names{"n2", "n3"});
    in.types.clear();
    CHECK(plan_nodes(in).end == names{"n2", "n3", "n1"});
  }
}

TEST_CASE("on random situations: bounds hold, what comes is enough or cannot "
          "be, and nothing is asked for in vain") {
  std::mt19937 random{20261129};
  auto below = [&](int n) {
    return static_cast<std::uint32_t>(random() % static_cast<unsigned>(n));
  };
  for (int round = 0; round < 500; ++round) {
    std::vector<node_type> types;
    for (std::uint32_t t = 0; t < 1 + below(4); ++t)
      types.push_back(a_type(fmt::format("t{}", t),
                             {{"CPU", 1 + below(8)}, {"GPU", below(3)}},
                             below(3), 2 + below(10)));
    std::vector<protocol::node_demand> demands;
    for (std::uint32_t d = 0; d < below(5); ++d)
      demands.push_back(a_demand(fmt::format("m{}", d), 1 + below(6),
                                 {{"CPU", 1 + below(8)}, {"GPU", below(2)}}));
    auto in = situation(types, demands);
    in.max_workers = 1 + below(20);
    in.upscaling_speed = 100;
    in.rooms = {a_room("head", {{"CPU", below(4)}})};
    for (std::uint32_t n = 0; n < below(6); ++n)
      in.nodes.push_back({fmt::format("n{}", n),
                          types[below(static_cast<int>(types.size()))].name,
                          true,
                          {}});
    auto given = static_cast<std::uint32_t>(in.nodes.size());
    for (int step = 0; step < 40; ++step) {
      auto plan = plan_nodes(in);
      std::map<std::string, std::uint32_t> count;
      for (const auto& node : in.nodes)
        ++count[node.type];
      std::uint32_t fresh = 0;
      for (const auto& [type, nodes] : plan.ask) {
        count[type] += nodes;
        fresh += nodes;
      }
      if (fresh == 0)
        break;
      REQUIRE(step < 39); // it comes to an end
      REQUIRE(in.nodes.size() + fresh <= in.max_workers);
      for (const auto& type : types)
        if (plan.ask.contains(type.name))
          REQUIRE(count[type.name] <= type.max_workers);
      REQUIRE(plan.end.empty());
      for (const auto& [type, nodes] : plan.ask)
        for (std::uint32_t i = 0; i < nodes; ++i)
          in.nodes.push_back(
              {fmt::format("n{}", in.nodes.size()), type, true, {}});
    }
    // Nothing more is asked for. What a type takes of which one more might come
    // has room by now; and nobody came for nothing.
    auto rooms = in.rooms;
    std::map<std::string, std::uint32_t> count;
    for (const auto& node : in.nodes) {
      ++count[node.type];
      for (const auto& type : types)
        if (type.name == node.type)
          rooms.push_back(a_room(node.node, type.resources));
    }
    auto by_size = in.demands;
    std::stable_sort(by_size.begin(), by_size.end(),
                     [](const auto& a, const auto& b) {
                       auto size = [](const auto& of) {
                         auto all = amounts_of(of.bundles[0].amounts);
                         return std::pair{all["GPU"], all["CPU"]};
                       };
                       return size(a) > size(b);
                     });
    for (const auto& demand : by_size) {
      auto what = replica_demand_of(demand);
      std::uint32_t placed = 0;
      for (const auto& where : controller::place(what, rooms, demand.replicas))
        for (auto& room : rooms)
          if (!where.nodes.empty() && room.node == where.nodes.front()) {
            controller::occupy(room, what, where);
            ++room.replicas;
            ++placed;
          }
      for (const auto& type : types) {
        auto could_come = in.nodes.size() < in.max_workers &&
                          count[type.name] < type.max_workers &&
                          controller::takes(a_room("x", type.resources), what);
        if (could_come)
          REQUIRE(placed == demand.replicas);
      }
    }
    std::uint32_t reasons = given;
    for (const auto& demand : in.demands)
      reasons += demand.replicas;
    for (const auto& type : types)
      reasons += type.min_workers;
    REQUIRE(in.nodes.size() <= reasons);
  }
}
