#include "tests/unit/controller/world.hpp"

using namespace troupe;
using namespace troupe::test;

namespace {

protocol::seen_node node_of(const world& w, const std::string& name) {
  for (const auto& node : w.view.nodes)
    if (node.node == name)
      return node;
  FAIL("no node " << name);
  return {};
}

double amount(const std::vector<protocol::resource>& from,
              const std::string& name) {
  for (const auto& one : from)
    if (one.name == name)
      return one.amount;
  return 0;
}

} // namespace

TEST_CASE("what has no place is a demand, with its bundles and its age") {
  world w;
  w.run(w.machine->watch_nodes(w.now));
  w.join("head", 4);
  CHECK(w.machine->demands(w.now).empty());
  auto wanted = a_model("m", 3, 3);
  wanted.demand.strategy = placement_strategy::strict_pack;
  w.deploy({wanted});
  w.pass(1500ms);
  auto demands = w.machine->demands(w.now);
  REQUIRE(demands.size() == 1);
  CHECK(demands[0].application == "app");
  CHECK(demands[0].model == "m");
  CHECK(demands[0].replicas == 2);
  CHECK(demands[0].waits_ms == 1500);
  CHECK(demands[0].strategy == "STRICT_PACK");
  CHECK(demands[0].engine == "cpu");
  REQUIRE(demands[0].bundles.size() == 1);
  CHECK(amount(demands[0].bundles[0].amounts, "CPU") == 3);
  CHECK(demands[0].reason.find("head has 1 of 4 CPU free") !=
        std::string::npos);
  CHECK(demands[0].here == std::vector<protocol::replicas_on>{{"head", 1}});
  CHECK(w.view.demands.size() == 1);

  SECTION("a node that comes takes a part of it; the rest has waited as long") {
    w.join("b", 4);
    w.pass(100ms);
    demands = w.machine->demands(w.now);
    REQUIRE(demands.size() == 1);
    CHECK(demands[0].replicas == 1);
    CHECK(demands[0].waits_ms == 1600);
    w.join("c", 4);
    w.pass(100ms);
    CHECK(w.machine->demands(w.now).empty());
    CHECK(w.view.demands.empty());
    CHECK(node_of(w, "c").busy);
  }
  SECTION("a model that goes takes its demand along") {
    w.deploy(std::vector<model_deployment>{});
    CHECK(w.machine->demands(w.now).empty());
  }
}

TEST_CASE("what a rolling change waits for is no demand if an old replica's "
          "room does") {
  world w;
  w.join("head", 4);
  w.deploy({a_model("m", 1, 3)});
  w.settle();
  auto changed = a_model("m", 1, 3);
  changed.spec.max_model_len = 77;
  w.deploy({changed});
  CHECK(w.machine->demands(w.now).empty());
  w.settle();
  changed = a_model("m", 1, 6);
  w.deploy({changed});
  REQUIRE(w.machine->demands(w.now).size() == 1);
  CHECK(w.routed() == 1);
}

TEST_CASE("nobody is told of nodes who does not bring them") {
  world w;
  w.join("head", 4);
  w.deploy({a_model("m", 3, 3)});
  CHECK(w.view.nodes.empty());
  w.run(w.machine->watch_nodes(w.now));
  CHECK(w.view.nodes.size() == 1);
  CHECK(w.view.demands.size() == 1);
}

TEST_CASE("nodes that are to come back are not missed before their time") {
  world w{2, {"head", "b"}};
  w.run(w.machine->restore(of_models({a_model("m", 2, 3)}), w.now));
  w.run(w.machine->watch_nodes(w.now));
  CHECK(w.view.nodes.empty());
  w.join("head", 4);
  CHECK(w.view.nodes.empty());
  w.pass(5s);
  CHECK(w.view.nodes.size() == 2);
  REQUIRE(w.view.demands.size() == 1);
  CHECK(w.view.demands[0].replicas == 1);
}

TEST_CASE("a node is closed only while nothing is on it") {
  world w;
  w.run(w.machine->watch_nodes(w.now));
  w.join("head", 4);
  w.deploy({a_model("m", 1, 3)});
  w.settle();
  commands orders;
  CHECK_FALSE(w.machine->close_node("head", true, orders, w.now));
  w.join("b", 4);
  CHECK(w.machine->close_node("b", true, orders, w.now));
  w.run(orders);
  w.deploy({a_model("m", 2, 3)});
  CHECK(w.machine->demands(w.now).size() == 1);
  w.pass(100ms);
  CHECK(node_of(w, "b").closed);
  CHECK_FALSE(node_of(w, "b").busy);

  SECTION("it stays closed when its connection breaks") {
    w.lose("b");
    w.join_again("b");
    CHECK(w.running_on("b").empty());
  }
  SECTION("opened again it takes what waits") {
    orders.clear();
    CHECK(w.machine->close_node("b", false, orders, w.now));
    w.run(orders);
    CHECK(w.running_on("b").size() == 1);
  }
  SECTION("what leaves still counts as being there, its room as free") {
    w.deploy(std::vector<model_deployment>{});
    w.pass(100ms);
    CHECK(node_of(w, "head").busy);
    CHECK(amount(node_of(w, "head").free, "CPU") == 4);
    orders.clear();
    CHECK_FALSE(w.machine->close_node("head", true, orders, w.now));
    w.all_ended();
    CHECK(w.machine->close_node("head", true, orders, w.now));
  }
}

TEST_CASE(
    "a closed node may come back with a replica that is to be exchanged") {
  world w;
  w.join("head", 4);
  w.join("b", 4);
  w.deploy({a_model("m", 2, 3)});
  w.settle();
  w.lose("b");
  commands orders;
  CHECK(w.machine->close_node("b", true, orders, w.now));
  w.run(orders);
  auto changed = a_model("m", 2, 3);
  changed.spec.environment = {{"CHANGE", "1"}};
  w.deploy({changed});
  w.all_ended();
  w.settle();
  // No node takes a second new one; the old one is not given up for it.
  w.join_again("b");
  CHECK(w.running_on("head").size() == 1);
  CHECK(w.running_on("b").size() == 1);
  CHECK(w.machine->demands(w.now).size() == 1);
}

TEST_CASE("a node that was ended is forgotten once it is gone") {
  world w;
  w.join("head", 4);
  w.join("b", 4);
  w.join("c", 4);
  w.lose("c");
  w.run(w.machine->bury({"b", "c", "never"}, w.now));
  CHECK(w.machine->status().nodes.size() == 2);
  CHECK(w.machine->state_of("b") == "alive");
  CHECK(w.remembered == std::vector<std::string>{"b", "head"});
  w.lose("b");
  CHECK(w.machine->state_of("b") == "unknown");
  CHECK(w.remembered == std::vector<std::string>{"head"});
}
