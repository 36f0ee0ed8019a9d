#include "tests/unit/controller/world.hpp"

#include <random>
#include <set>

using namespace troupe;
using namespace troupe::test;

namespace {

/// So many ranks, each with so many CPUs.
model_deployment ranked(const std::string& name, std::uint32_t ranks,
                        double cpus, std::uint32_t replicas = 1) {
  auto out = a_model(name, replicas);
  out.demand.bundles.assign(ranks, amounts{{"CPU", cpus}});
  out.demand.nodes_max = ranks;
  out.spec.tensor_parallel_size = ranks;
  return out;
}

const protocol::replica_spec& spec_of(world& w, const std::string& id) {
  return w.agent_of(id).running.at(id).spec;
}

using names = std::vector<std::string>;

/// Two nodes with room for two ranks each, and a replica of three.
struct pair_of_nodes : world {
  pair_of_nodes() {
    join("a", 2);
    join("b", 2);
    deploy({ranked("m", 3, 1)});
  }

  void start() {
    report("app/m#1", replica_phase::starting);
    report("app/m#1", replica_phase::ready);
  }
};

} // namespace

TEST_CASE("ranks go to several nodes only where a replica may span them") {
  world w;
  w.join("a", 2);
  w.join("b", 2);
  auto wanted = ranked("m", 3, 1);
  wanted.demand.nodes_max = 1;
  w.deploy({wanted});
  CHECK(w.running() == 0);
  w.deploy({ranked("m", 3, 1)});
  CHECK(w.running_on("a") == names{"app/m#1"});
  CHECK(w.running_on("b") == names{"app/m#1/1"});
  const auto& whole = spec_of(w, "app/m#1");
  const auto& part = spec_of(w, "app/m#1/1");
  CHECK(whole.part == 0);
  CHECK(part.part == 1);
  CHECK(part.leader == 0);
  CHECK(protocol::ranks_here(whole).first == 0);
  CHECK(protocol::ranks_here(whole).count == 2);
  CHECK(protocol::ranks_here(part).first == 2);
  CHECK(protocol::ranks_here(part).count == 1);
  CHECK(used_of(w, "a") == 2);
  CHECK(used_of(w, "b") == 1);
  w.deploy(std::vector<model_deployment>{});
  w.all_ended();
  CHECK(w.running() == 0);
  CHECK(used_of(w, "a") == 0);
  CHECK(used_of(w, "b") == 0);
}

TEST_CASE("where one node has room for all ranks they are together") {
  world w;
  w.join("a", 2);
  w.join("b", 4);
  w.deploy({ranked("m", 3, 1)});
  CHECK(w.running_on("b") == names{"app/m#1"});
  CHECK(spec_of(w, "app/m#1").ranks_on.empty());
  CHECK(w.running() == 1);
}

TEST_CASE("a node of an older version is given no part") {
  world w;
  w.join("a", 2);
  w.agents["b"].self.version = protocol::protocol_version - 1;
  w.join("b", 2);
  w.deploy({ranked("m", 3, 1)});
  CHECK(w.running() == 0);
  w.join("c", 2);
  CHECK(w.running() == 2);
  CHECK(w.running_on("b").empty());
}

TEST_CASE_METHOD(pair_of_nodes, "parts follow each start of their replica") {
  CHECK(spec_of(*this, "app/m#1/1").leader == 0);
  start();
  auto first = agents["a"].running["app/m#1"].report.incarnation;
  CHECK(spec_of(*this, "app/m#1/1").leader == first);
  CHECK(routed() == 1);
  report("app/m#1", replica_phase::failed, "killed");
  CHECK(spec_of(*this, "app/m#1/1").leader == 0);
  report("app/m#1", replica_phase::starting);
  auto second = agents["a"].running["app/m#1"].report.incarnation;
  CHECK(second != first);
  CHECK(spec_of(*this, "app/m#1/1").leader == second);
}

TEST_CASE_METHOD(pair_of_nodes, "what ranks say goes to those of the same "
                                "start on other nodes") {
  start();
  auto leader = agents["a"].running["app/m#1"].report.incarnation;
  protocol::rank_word said;
  said.node = "a";
  said.node_epoch = agents["a"].epoch;
  said.replica = "app/m#1";
  said.leader = leader;
  said.key = "address";
  CHECK(machine->hearers(said) == names{"b"});
  auto back = said;
  back.node = "b";
  back.node_epoch = agents["b"].epoch;
  CHECK(machine->hearers(back) == names{"a"});
  auto old = said;
  old.leader = 1;
  CHECK(machine->hearers(old).empty());
  old = said;
  old.node_epoch = 1;
  CHECK(machine->hearers(old).empty());
  old = said;
  old.replica = "app/other#1";
  CHECK(machine->hearers(old).empty());
  old.node = "nobody";
  CHECK(machine->hearers(old).empty());
  // Of a start that is over: why, and nothing else.
  report("app/m#1", replica_phase::failed, "killed");
  report("app/m#1", replica_phase::starting);
  CHECK(machine->hearers(back).empty());
  back.key.clear();
  CHECK(machine->hearers(back) == names{"a"});
}

TEST_CASE_METHOD(pair_of_nodes, "what GPUs of parts are used for is in the "
                                "replica's status") {
  start();
  auto& whole = agents["a"].running.at("app/m#1").report;
  auto& part = agents["b"].running.at("app/m#1/1").report;
  whole.gpus = {{"0", 1, 10, 20}};
  part.gpus = {{"1", 2, 10, -1}};
  run(machine->report({"a", agents["a"].epoch, whole}, now));
  run(machine->report({"b", agents["b"].epoch, part}, now));
  const std::vector<protocol::gpu_use> all{{"0", 1, 10, 20},
                                           {"1", 2, 10, -1, "b"}};
  CHECK(status().replicas.at(0).gpus == all);
  join_again("b");
  CHECK(status().replicas.at(0).gpus == all);
  part.gpus.clear();
  run(machine->report({"b", agents["b"].epoch, part}, now));
  CHECK(status().replicas.at(0).gpus == whole.gpus);
}

TEST_CASE_METHOD(pair_of_nodes, "a replica that has lost the node of a part is "
                                "placed anew") {
  start();
  lose("b");
  CHECK(running_on("a").empty());
  all_ended();
  CHECK(status().status == "PENDING");
  CHECK(used_of(*this, "a") == 0);
  agents.at("b").running.clear();
  join("c", 2);
  CHECK(running_on("a").size() + running_on("c").size() == 2);
  CHECK(used_of(*this, "a") + used_of(*this, "c") == 3);
}

TEST_CASE_METHOD(pair_of_nodes, "a part whose replica is lost ends") {
  start();
  lose("a");
  CHECK(running_on("b").empty());
  all_ended();
  CHECK(used_of(*this, "b") == 0);
}

TEST_CASE_METHOD(pair_of_nodes, "a node that registers anew brings its part "
                                "back, and the replica stays") {
  start();
  for (const auto* name : {"b", "a", "b"}) {
    join_again(name);
    CHECK(running_on("a") == names{"app/m#1"});
    CHECK(running_on("b") == names{"app/m#1/1"});
    CHECK(used_of(*this, "a") == 2);
    CHECK(used_of(*this, "b") == 1);
  }
  CHECK(stopped == 0);
  // One that comes without it has ended it.
  agents["b"].running.clear();
  join_again("b");
  CHECK(running_on("a").empty());
}

TEST_CASE_METHOD(pair_of_nodes, "where the network is trusted no more, what "
                                "needs it ends at once") {
  start();
  auto wanted = ranked("m", 3, 1);
  wanted.demand.nodes_max = 1;
  deploy({wanted});
  CHECK(running() == 0);
  all_ended();
  CHECK(status().status == "PENDING");
}

TEST_CASE_METHOD(pair_of_nodes, "a node that is to end takes the replica with "
                                "it") {
  start();
  auto part = agents["b"].running.at("app/m#1/1").report;
  run(machine->report({"b", agents["b"].epoch, part, true}, now));
  CHECK(running_on("a").empty());
  CHECK(running_on("b").empty());
  commands orders;
  CHECK(machine->close_node("b", true, orders, now) == false); // it still ends
}

TEST_CASE("a head that begins anew keeps replicas over several nodes") {
  pair_of_nodes before;
  before.start();
  const auto first = GENERATE(std::string{"a"}, std::string{"b"});
  const auto second = std::string{first == "a" ? "b" : "a"};
  world w{2, {"a", "b"}};
  w.agents = before.agents;
  w.incarnations = 1000;
  w.run(w.machine->restore(of_models({ranked("m", 3, 1)}), w.now));
  w.join_again(first);
  SECTION("all come back") {
    w.join_again(second);
    CHECK(w.running_on("a") == names{"app/m#1"});
    CHECK(w.running_on("b") == names{"app/m#1/1"});
    CHECK(w.stopped == 0);
    CHECK(used_of(w, "a") == 2);
    CHECK(used_of(w, "b") == 1);
    CHECK(w.routed() == 1);
  }
  SECTION("one has ended its part of the start that goes on") {
    world again{3, {"a", "b"}};
    again.agents = before.agents;
    again.incarnations = 2000;
    auto& part = again.agents["b"].running.at("app/m#1/1");
    part.report.phase = replica_phase::failed;
    again.run(
        again.machine->restore(of_models({ranked("m", 3, 1)}), again.now));
    again.join_again(first);
    again.join_again(second);
    CHECK(again.stopped > 0);
  }
  SECTION("one does not") {
    CHECK(w.running_on(first).size() == 1);
    w.pass(60s);
    CHECK(w.running_on(first).empty());
  }
}

TEST_CASE("what ends of a replica over several nodes ends, though a head that "
          "begins anew waits for other nodes") {
  pair_of_nodes before;
  before.start();
  before.deploy({ranked("m", 3, 1, 0)});
  CHECK(before.running() == 0);
  world w{2, {"a", "b", "c"}};
  w.agents = before.agents;
  w.incarnations = 1000;
  w.run(w.machine->restore(of_models({ranked("m", 3, 1, 0)}), w.now));
  w.join_again("a");
  w.join_again("b");
  CHECK(w.running() == 0);
  CHECK(used_of(w, "a") == 2);
  CHECK(used_of(w, "b") == 1);
  w.all_ended();
  CHECK(used_of(w, "a") == 0);
  CHECK(used_of(w, "b") == 0);
}

TEST_CASE("whatever happens, a replica has all its parts or goes, and nothing "
          "is kept for what is gone") {
  for (unsigned seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    std::mt19937 random{seed};
    auto below = [&](std::uint32_t n) { return random() % n; };
    world w;
    const names all{"a", "b", "c", "d"};
    for (const auto& name : all)
      w.join(name, 2 + below(3));
    for (int step = 0; step < 60; ++step) {
      const auto& name = all[below(4)];
      switch (below(7)) {
      case 0:
        w.deploy({ranked("m", 2 + below(3), 1, below(3)),
                  ranked("n", 2, 1 + below(2), below(2))});
        break;
      case 1:
        if (w.agents[name].connected)
          w.lose(name);
        break;
      case 2:
        if (below(2) == 0)
          w.agents[name].running.clear();
        w.join_again(name);
        break;
      case 3:
        w.all_ended();
        break;
      case 4:
        w.all_ready();
        break;
      case 5: {
        auto running = w.running_on(name);
        if (w.agents[name].connected && !running.empty())
          w.report(running[below(static_cast<std::uint32_t>(running.size()))],
                   below(2) == 0 ? replica_phase::failed
                                 : replica_phase::starting);
        break;
      }
      default:
        w.pass(milliseconds{below(5'000)});
      }
      std::set<std::string> there, parts;
      for (const auto& [node, at] : w.agents)
        if (at.connected)
          for (const auto& [id, one] : at.running)
            (one.spec.part == 0 ? there : parts).insert(id);
      std::size_t expected = 0;
      for (const auto& [node, at] : w.agents)
        for (const auto& [id, one] : at.running)
          if (at.connected && one.spec.part == 0)
            for (std::uint32_t i = 1; i < one.spec.ranks_on.size(); ++i) {
              ++expected;
              CHECK(parts.contains(protocol::part_id(id, i)));
              CHECK(w.agents[one.spec.ranks_on[i].node].connected);
            }
      CHECK(parts.size() == expected);
      for (const auto& node : w.machine->status().nodes)
        for (const auto& [what, amount] : node.used)
          if (node.alive && what == "CPU")
            CHECK(amount <= node.node.cpus + 1e-6);
    }
    w.deploy(std::vector<model_deployment>{});
    for (const auto& name : all)
      if (!w.agents[name].connected)
        w.join_again(name);
    w.all_ended();
    w.pass(120s);
    w.all_ended();
    for (const auto& name : all)
      CHECK(used_of(w, name) == 0);
  }
}
