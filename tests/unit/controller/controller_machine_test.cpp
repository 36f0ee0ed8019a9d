#include "tests/unit/controller/world.hpp"

#include <set>

using namespace troupe;
using namespace troupe::test;

TEST_CASE(
    "a deployment starts its replicas and is routed when they are ready") {
  world w;
  w.join("head");
  w.deploy({a_model("m", 2)});
  REQUIRE(w.running_on("head") ==
          std::vector<std::string>{"app/m#1", "app/m#2"});
  CHECK(w.agents["head"].last.replicas[0].threads == 2); // 4 cores, 2 replicas
  CHECK(w.status().status == "DEPLOYING");
  CHECK(w.routed() == 0);
  auto version = w.machine->table().version;
  w.report("app/m#1", replica_phase::loading);
  CHECK(w.machine->table().version == version);
  w.report("app/m#1", replica_phase::ready);
  CHECK(w.machine->table().version > version);
  REQUIRE(w.routed() == 1);
  CHECK(w.machine->table().models[0].replicas[0].where.port == 4000);
  CHECK(w.machine->table().models[0].replicas[0].version ==
        protocol::protocol_version);
  CHECK(w.status().status == "RUNNING");
  CHECK(w.status().reason == "1 of 2 replicas are ready");
  w.report("app/m#2", replica_phase::ready);
  CHECK(w.status().reason.empty());
}

TEST_CASE("a deployment that comes before any node waits and then starts") {
  world w;
  w.deploy({a_model("m")});
  CHECK(w.status().status == "PENDING");
  CHECK(w.status().reason == "no node has joined yet");
  w.join("head");
  CHECK(w.running() == 1);
}

TEST_CASE("what cannot be placed says which bundle fails where, others serve") {
  world w;
  w.join("head", 4);
  auto big = a_model("big");
  big.demand.engine = "cuda";
  auto hungry = a_model("hungry", 3, 3);
  w.deploy({big, hungry, a_model("small")});
  w.settle();
  CHECK(w.status(0).status == "PENDING");
  CHECK(w.status(0).reason == "no node can take it (head has no GPU engine)");
  CHECK(w.status(1).status == "RUNNING");
  CHECK(w.status(1).reason == "no node can take it (bundle 1 (CPU 3): head has "
                              "1 of 4 CPU free)");
  CHECK(w.status(2).status == "RUNNING");
  // A node with room takes one at once; the reason follows.
  w.join("w1", 4);
  CHECK(w.running_on("w1").size() == 1);
  CHECK(w.status(1).reason == "no node can take it (bundle 1 (CPU 3): head has "
                              "1 of 4 CPU free; w1 has 1 of 4 CPU free)");
  w.lose("w1");
  CHECK(w.status(1).reason == "no node can take it (bundle 1 (CPU 3): head has "
                              "1 of 4 CPU free)");
}

TEST_CASE("the bound per node is kept and named") {
  world w;
  w.join("head");
  auto bounded = a_model("m", 2);
  bounded.demand.replicas_per_node_max = 1;
  w.deploy({bounded});
  CHECK(w.running() == 1);
  CHECK(w.status().reason ==
        "no node can take it (head: max_replicas_per_node is 1)");
  w.join("w1");
  CHECK(w.running_on("w1").size() == 1);
}

TEST_CASE("a replica that dies leaves the table and comes back with its new "
          "life") {
  world w;
  w.join("head");
  w.deploy({a_model("m")});
  w.settle();
  w.report("app/m#1", replica_phase::failed, "killed by SIGKILL");
  CHECK(w.routed() == 0);
  CHECK(w.status().status == "UNHEALTHY");
  CHECK(w.status().reason == "app/m#1: killed by SIGKILL");
  w.report("app/m#1", replica_phase::ready);
  REQUIRE(w.routed() == 1);
  CHECK(w.machine->table().models[0].replicas[0].where.incarnation ==
        w.incarnations);
}

TEST_CASE("late news, news of older lives and of older epochs change nothing") {
  world w;
  w.join("head");
  w.deploy({a_model("m")});
  w.settle();
  auto old = w.agents["head"].running["app/m#1"].report;
  auto epoch = w.agents["head"].epoch;
  auto say = [&](protocol::replica_report report, std::uint64_t of) {
    auto version = w.machine->table().version;
    w.run(w.machine->report({"head", of, report}, w.now));
    return w.machine->table().version != version;
  };
  old.load.sequence = 5;
  CHECK_FALSE(say(old, epoch));
  auto late = old;
  late.load.sequence = 4;
  late.phase = replica_phase::failed;
  CHECK_FALSE(say(late, epoch));
  late = old;
  late.phase = replica_phase::loading;
  late.load.sequence = 9;
  CHECK_FALSE(say(late, epoch));
  // Its end is believed although the agent says it without a load.
  auto ended = old;
  ended.phase = replica_phase::failed;
  ended.load.sequence = 0;
  CHECK_FALSE(say(ended, epoch - 1));
  CHECK(say(ended, epoch));
  CHECK(w.routed() == 0);
  // A load report that was on its way does not bring it back, ...
  old.load.sequence = 6;
  CHECK_FALSE(say(old, epoch));
  auto next = old;
  next.incarnation = 9'999;
  CHECK(say(next, epoch));
  // ... nor does one after its successor is there.
  CHECK_FALSE(say(ended, epoch));
  CHECK(w.routed() == 1);
  old.replica = "other#1";
  CHECK_FALSE(say(old, epoch));
}

TEST_CASE("a model whose replicas are given up is DEPLOY_FAILED with the "
          "reason, and is tried again when it is deployed again") {
  world w;
  w.join("head");
  w.deploy({a_model("m")});
  w.report("app/m#1", replica_phase::failed, "model.gguf: bad magic", true);
  CHECK(w.machine->table().models[0].status == "DEPLOY_FAILED");
  CHECK(w.machine->table().models[0].reason ==
        "app/m#1: model.gguf: bad magic");
  w.deploy({a_model("m")});
  CHECK(w.running_on("head") == std::vector<std::string>{"app/m#2"});
  CHECK(w.status().status == "DEPLOYING");
}

TEST_CASE("a changed file changes only what changed") {
  world w;
  w.join("head");
  w.deploy({a_model("a"), a_model("b"), a_model("c")});
  w.settle();
  auto assignments = w.assignments;
  auto same = a_model("a");
  same.created = 99;
  w.deploy({same, a_model("b"), a_model("c")});
  CHECK(w.assignments == assignments);
  auto changed = a_model("b");
  changed.spec.max_num_seqs = 8;
  w.deploy({same, changed});
  w.settle();
  CHECK(w.running_on("head") == std::vector<std::string>{"app/a#1", "app/b#2"});
  auto table = w.machine->table();
  REQUIRE(table.models.size() == 2);
  CHECK(table.models[0].created == 7);
  CHECK(table.models[1].replicas.size() == 1);
}

TEST_CASE("fewer replicas end the last ones, more start what is missing") {
  world w;
  w.join("head");
  w.deploy({a_model("m", 3)});
  w.settle();
  w.deploy({a_model("m", 1)});
  CHECK(w.running_on("head") == std::vector<std::string>{"app/m#1"});
  // The names of those that still drain are not given again.
  w.deploy({a_model("m", 2)});
  CHECK(w.running_on("head") == std::vector<std::string>{"app/m#1", "app/m#4"});
  w.all_ended();
  w.deploy({a_model("m", 3)});
  CHECK(w.running_on("head") ==
        std::vector<std::string>{"app/m#1", "app/m#2", "app/m#4"});
  w.deploy(deployment{});
  CHECK(w.running() == 0);
  CHECK(w.machine->table().models.empty());
}

TEST_CASE("what needs no restart is changed in place") {
  world w;
  w.join("head");
  w.deploy({a_model("m", 2)});
  w.settle();
  auto started = w.started;
  auto other = a_model("m", 2);
  other.spec.max_ongoing_requests = 5;
  other.spec.graceful_shutdown_timeout_ms = 1;
  other.spec.start_retries = 2;
  other.spec.restarts_max = 1;
  other.spec.restart_pause_max_ms = 7;
  other.spec.health_check_period_ms = 70;
  other.spec.health_check_timeout_ms = 80;
  other.max_queued_requests = 3;
  other.choice.policy = protocol::choice_policy::session;
  other.note = "noted";
  w.deploy({other});
  CHECK(w.started == started);
  CHECK(w.stopped == 0);
  CHECK(w.tuned == 2);
  CHECK(w.agents["head"].last.replicas[1].threads == 2);
  auto route = w.machine->table().models[0];
  CHECK(route.max_queued_requests == 3);
  CHECK(route.choice.policy == protocol::choice_policy::session);
  REQUIRE(route.replicas.size() == 2);
  CHECK(route.replicas[0].max_ongoing_requests == 5);
  CHECK(w.status().status == "RUNNING");
}

TEST_CASE("a thread count that is given, or no longer given, is a change") {
  world w;
  w.join("head");
  w.deploy({a_model("m")});
  w.settle();
  auto given = a_model("m");
  given.spec.threads = 3;
  w.deploy({given});
  w.settle();
  CHECK(w.agents["head"].last.replicas[0].threads == 3);
  w.deploy({a_model("m")});
  w.settle();
  CHECK(w.agents["head"].last.replicas[0].threads == 4);
  CHECK(w.stopped == 2);
}

TEST_CASE("a rolling change has the new ones ready before old ones leave") {
  world w;
  w.join("head", 8);
  w.join("w1", 8);
  w.deploy({a_model("m", 10)});
  w.settle();
  for (std::uint32_t change = 1; change <= 20; ++change) {
    auto next = a_model("m", 10);
    next.spec.max_num_seqs = change;
    w.deploy({next});
    CHECK(w.status().status == "DEPLOYING");
    for (int step = 0; step < 100; ++step) {
      REQUIRE(w.routed() >= 10);
      REQUIRE(w.running() <= 12); // a fifth more
      auto starting = w.with_phase(replica_phase::starting);
      if (starting.empty())
        break;
      w.report(starting.front().first, replica_phase::ready);
      if (step % 3 == 0)
        w.all_ended();
    }
    w.settle();
    REQUIRE(w.status().status == "RUNNING");
    REQUIRE(w.status().reason.empty());
    REQUIRE(w.running() == 10);
    for (const auto& [name, at] : w.agents)
      for (const auto& [id, one] : at.running)
        REQUIRE(one.spec.max_num_seqs == change);
  }
}

TEST_CASE("what a node had that drains by itself is placed elsewhere at once") {
  world w;
  w.join("a");
  w.join("b");
  w.deploy({a_model("m", 2), a_model("n", 2)});
  w.settle();
  auto moving = w.running_on("b");
  REQUIRE(moving.size() == 2);
  auto draining = w.agents.at("b").running.at(moving[0]).report;
  draining.phase = replica_phase::draining;
  w.run(
      w.machine->report({"b", w.agents.at("b").epoch, draining, true}, w.now));
  CHECK(w.running_on("a").size() == 4);
  CHECK(w.running_on("b").empty()); // it is told what it does already
  w.settle();
  CHECK(w.routed(0) == 2);
  CHECK(w.routed(1) == 2);
  w.deploy({a_model("m", 4), a_model("n", 2)});
  CHECK(w.running_on("b").empty()); // nor does it get anything more
  w.lose("b");
  w.join("b", 4, 2); // but its next life does
  w.deploy({a_model("m", 6), a_model("n", 2)});
  w.settle();
  CHECK(w.running_on("b").size() == 2);
}

TEST_CASE("without room for old and new, one old replica is given up first") {
  world w;
  w.join("head", 4);
  w.deploy({a_model("m", 2, 2)});
  w.settle();
  auto next = a_model("m", 2, 2);
  next.spec.block_size = 32;
  w.deploy({next});
  CHECK(w.running() == 1); // nothing new before its cores are free
  CHECK(w.routed() == 1);
  CHECK(w.status().status == "DEPLOYING");
  w.all_ended();
  CHECK(w.running() == 2);
  CHECK(w.routed() == 1); // the other old one goes on until the new is ready
  w.all_ready();
  CHECK(w.routed() == 1);
  w.settle();
  CHECK(w.status().status == "RUNNING");
  CHECK(w.started == 4);
}

TEST_CASE("an end that is never reported holds its room only for a while") {
  world w;
  w.join("head", 2);
  auto first = a_model("a", 1, 2);
  first.spec.graceful_shutdown_timeout_ms = 1'000;
  w.deploy({first});
  w.settle();
  w.deploy({a_model("b", 1, 2)});
  CHECK(w.status().status == "PENDING");
  CHECK(w.machine->next_deadline().has_value());
  w.pass(5'999ms);
  CHECK(w.running() == 0);
  w.pass(1ms);
  CHECK(w.running_on("head") == std::vector<std::string>{"app/b#1"});
}

TEST_CASE("a new configuration that fits nowhere costs no old replica") {
  world w;
  w.join("head", 4);
  w.deploy({a_model("m", 2, 1)});
  w.settle();
  w.deploy({a_model("m", 2, 5)});
  w.settle();
  CHECK(w.stopped == 0);
  CHECK(w.routed() == 2);
  CHECK(w.status().reason.find("CPU 5") != std::string::npos);
  w.join("w1", 16);
  w.settle();
  CHECK(w.status().status == "RUNNING");
  CHECK(w.running_on("w1").size() == 2);
  CHECK(w.running_on("head").empty());
}

TEST_CASE("a change whose new replicas fail for good stops and says why") {
  world w;
  w.join("head");
  w.deploy({a_model("m", 4)});
  w.settle();
  auto bad = a_model("m", 4);
  bad.spec.block_size = 1;
  w.deploy({bad});
  REQUIRE(w.with_phase(replica_phase::starting).size() == 1);
  w.report("app/m#5", replica_phase::failed, "block_size: too small", true);
  w.settle();
  w.pass(60s);
  CHECK(w.routed() == 4);
  CHECK(w.stopped == 0);
  CHECK(w.status().status == "DEPLOY_FAILED");
  CHECK(w.status().reason ==
        "the change has stopped, 4 of the 4 replicas before it serve on; "
        "app/m#5: block_size: too small");
  // Back to what it was: nothing is restarted.
  w.deploy({a_model("m", 4)});
  w.settle();
  CHECK(w.status().status == "RUNNING");
  CHECK(w.started == 5);
  CHECK(w.running() == 4);
}

TEST_CASE("a change can be changed while it rolls") {
  world w;
  w.join("head");
  w.deploy({a_model("m", 4)});
  w.settle();
  auto second = a_model("m", 4);
  second.spec.block_size = 1;
  w.deploy({second});
  w.all_ready();
  auto third = a_model("m", 6);
  third.spec.block_size = 2;
  w.deploy({third});
  CHECK(w.routed() >= 4);
  w.settle();
  CHECK(w.running() == 6);
  CHECK(w.status().reason.empty());
  third.replicas = 2;
  third.spec.block_size = 3;
  w.deploy({third});
  CHECK(w.routed() == 2);
  w.settle();
  CHECK(w.running() == 2);
}

TEST_CASE("a lost node's replicas are placed elsewhere under new names") {
  world w;
  w.join("a");
  w.join("b");
  w.deploy({a_model("m", 4)});
  w.settle();
  REQUIRE(w.running_on("b").size() == 2);
  auto old = w.running_on("b");
  w.lose("b");
  CHECK(w.running_on("a").size() == 4);
  for (const auto& id : w.running_on("a"))
    CHECK(std::find(old.begin(), old.end(), id) == old.end());
  CHECK(w.routed() == 2);
  auto nodes = w.machine->status().nodes;
  REQUIRE(nodes.size() == 2);
  CHECK(nodes[0].alive);
  CHECK_FALSE(nodes[1].alive);
  w.all_ready();
  // It comes back: what it has is not wanted any more.
  w.join_again("b");
  CHECK(w.agents["b"].last.replicas.empty());
  CHECK(w.running_on("b").empty());
  CHECK(w.running_on("a").size() == 4);
  CHECK(w.routed() == 4);
}

TEST_CASE("what serves on a node that comes back is kept before what starts") {
  world w;
  w.join("a");
  w.join("b");
  w.deploy({a_model("m", 2)});
  w.settle();
  auto old = w.running_on("b");
  w.lose("b");
  CHECK(w.running_on("a").size() == 2); // the second one is starting
  w.join_again("b");
  CHECK(w.running_on("b") == old);
  CHECK(w.running_on("a").size() == 1);
  CHECK(w.routed() == 2);
}

TEST_CASE("replicas of a lost node that fit nowhere else are its own again") {
  world w;
  w.join("a", 2);
  w.join("b", 2);
  w.deploy({a_model("m", 2, 2)});
  w.settle();
  w.lose("b");
  CHECK(w.status().reason.find("a has 0 of 2 CPU free") != std::string::npos);
  auto started = w.started;
  w.join_again("b");
  CHECK(w.started == started);
  CHECK(w.routed() == 2);
  CHECK(w.status().reason.empty());
}

TEST_CASE("the same process over a new connection keeps what it has") {
  world w;
  w.join("a");
  w.deploy({a_model("m", 2)});
  w.settle();
  auto before = w.agents["a"].epoch;
  CHECK(w.join_again("a").accepted);
  CHECK(w.agents["a"].epoch > before);
  CHECK(w.routed() == 2);
  CHECK(w.started == 2);
  CHECK(w.stopped == 0);
  // The end of the old connection is nobody's any more.
  w.run(w.machine->node_lost("a", before, w.now));
  CHECK(w.routed() == 2);
}

TEST_CASE("a registration that comes after a newer one changes nothing") {
  world w;
  w.join("a");
  w.deploy({a_model("m", 2)});
  w.settle();
  auto& self = w.agents["a"].self;
  self.attempt = 2;
  REQUIRE(w.join_again("a").accepted);
  auto epoch = w.agents["a"].epoch;
  auto late = self;
  late.attempt = 1;
  commands orders;
  auto answer = w.machine->join(late, orders, w.now);
  CHECK_FALSE(answer.accepted);
  CHECK(answer.reason == "a has registered anew since");
  CHECK(orders.empty());
  CHECK(w.routed() == 2);
  // The epoch that counts is the one before.
  w.report(w.running_on("a").at(0), replica_phase::failed);
  CHECK(w.routed() == 1);
  CHECK(w.agents["a"].epoch == epoch);
  // One of before version 7 does not tell, another life counts anew.
  self.attempt = 0;
  CHECK(w.join_again("a").accepted);
  self.attempt = 5;
  CHECK(w.join_again("a").accepted);
  w.lose("a");
  ++self.incarnation;
  self.attempt = 1;
  CHECK(w.join_again("a").accepted);
}

TEST_CASE("a node is refused for its name, version, newer head or amounts") {
  world w{3};
  CHECK(w.join("a").accepted);
  auto refusal = [&](auto change) {
    protocol::node_joined node;
    node.node = "x";
    node.incarnation = 2;
    change(node);
    commands none;
    auto answer = w.machine->join(node, none, w.now);
    CHECK_FALSE(answer.accepted);
    CHECK(none.empty());
    return answer.reason;
  };
  CHECK(refusal([](auto& n) { n.node = "a"; }) ==
        "another process of the cluster is named a");
  CHECK(refusal([](auto& n) { n.node = ""; }).find("name") !=
        std::string::npos);
  CHECK(refusal([](auto& n) { n.version += 2; }).find("version") !=
        std::string::npos);
  CHECK(refusal([](auto& n) { n.version = 0; }).find("version") !=
        std::string::npos);
  CHECK(refusal([](auto& n) { n.head_epoch = 4; }) ==
        "x has obeyed a newer head (epoch 4, this one is 3)");
  CHECK(refusal([](auto& n) {
          n.resources = {{"fpga", -1}};
        }).find("fpga") != std::string::npos);
  protocol::node_joined near;
  near.node = "y";
  near.version = protocol::protocol_version + 1;
  commands orders;
  CHECK(w.machine->join(near, orders, w.now).accepted);
  // Once the other is lost, its name is free.
  w.lose("a");
  CHECK(w.join("a", 4, 9).accepted);
}

TEST_CASE("a node that is revoked is gone, and every other one hears of it") {
  world w;
  w.join("head");
  w.join("a");
  w.join("b");
  auto spread = a_model("m", 2);
  spread.demand.replicas_per_node_max = 1;
  w.deploy({spread});
  w.settle();
  auto lost = w.with_phase(replica_phase::ready).front().second;
  CHECK(w.machine->state_of(lost) == "alive");
  auto tables = w.machine->table().version;
  w.agents.erase(lost);
  w.run(w.machine->revoke(lost, {{lost, 1}}, w.now));
  CHECK(w.machine->state_of(lost) == "unknown");
  CHECK(w.machine->table().version > tables);
  CHECK(w.routed() == 1);
  CHECK(w.remembered.size() == 2); // nobody waits for it after a restart
  for (const auto& [name, at] : w.agents)
    CHECK(at.last.revoked.size() == 1);
  CHECK(w.machine->status().revoked == std::vector<std::string>{lost});
  w.settle();
  CHECK(w.status().reason.empty());
  CHECK(w.routed() == 2);
  // With a new certificate it is a node like others, and hears of the list.
  CHECK(w.join(lost, 4, 2).accepted);
  CHECK(w.agents.at(lost).last.revoked.size() == 1);
}

TEST_CASE("a node that nobody knows can be revoked, and one that is lost") {
  world w;
  w.join("head");
  w.join("a");
  w.lose("a");
  CHECK(w.machine->state_of("a") == "lost");
  w.run(w.machine->revoke("a", {{"a", 1}}, w.now));
  CHECK(w.machine->state_of("a") == "unknown");
  w.run(w.machine->revoke("x", {{"a", 1}, {"x", 2}}, w.now));
  CHECK(w.agents.at("head").last.revoked.size() == 2);
  CHECK(w.machine->status().nodes.size() == 1);
  // A head that starts knows the list.
  w.machine.emplace(2, controller_limits{}, std::vector<std::string>{}, w.now,
                    w.agents.at("head").last.revoked);
  w.join_again("head");
  CHECK(w.agents.at("head").last.revoked.size() == 2);
}

TEST_CASE("an assignment is written for the version of its node") {
  world w;
  protocol::node_joined older;
  older.node = "a";
  older.version = protocol::protocol_version - 1;
  auto newer = older;
  newer.node = "b";
  newer.version = protocol::protocol_version + 1;
  commands orders;
  REQUIRE(w.machine->join(older, orders, w.now).accepted);
  REQUIRE(w.machine->join(newer, orders, w.now).accepted);
  std::map<std::string, std::uint32_t> versions;
  for (const auto& order : orders)
    if (const auto* to = std::get_if<send_assignment>(&order))
      versions[to->node] = to->version;
  CHECK(versions.at("a") == protocol::protocol_version - 1);
  CHECK(versions.at("b") == protocol::protocol_version);
}

TEST_CASE("a restarted head adopts what lives and changes nothing") {
  world w{1};
  w.join("head");
  w.join("b");
  auto tuned = a_model("m", 4);
  w.deploy({tuned, a_model("n", 2, 1)});
  w.settle();
  auto version = w.machine->table().version;
  auto stored = w.machine->wanted();
  auto started = w.started;
  w.machine.emplace(2, controller_limits{}, w.remembered, w.now);
  w.run(w.machine->restore(stored, w.now));
  w.join_again("b");
  CHECK(w.routed() == 2);
  CHECK(w.running() == 6); // it waits for the other node
  CHECK(w.status().reason.find("come back") != std::string::npos);
  w.join_again("head");
  CHECK(w.started == started);
  CHECK(w.stopped == 0);
  CHECK(w.routed(0) == 4);
  CHECK(w.routed(1) == 2);
  CHECK(w.status(0).reason.empty());
  CHECK(w.machine->table().version > version);
  CHECK(w.machine->table().version >> 32 == 2);
}

TEST_CASE("a node that does not come back after a restart is replaced") {
  world w{1};
  w.join("head");
  w.join("b");
  w.deploy({a_model("m", 2)});
  w.settle();
  auto stored = w.machine->wanted();
  w.machine.emplace(2, controller_limits{}, w.remembered, w.now);
  w.run(w.machine->restore(stored, w.now));
  w.join_again("head");
  CHECK(w.running_on("head").size() == 1);
  auto restarted = w.now;
  w.pass(20ms); // the table
  CHECK((w.machine->next_deadline() == restarted + 5s));
  // What was not there before the restart does not wait.
  w.deploy({a_model("m", 2), a_model("new")});
  CHECK(w.running_on("head").size() == 2);
  w.pass(4'979ms);
  CHECK(w.running_on("head").size() == 2);
  w.pass(1ms);
  CHECK(w.running_on("head").size() == 3);
  auto nodes = w.machine->status().nodes;
  REQUIRE(nodes.size() == 2);
  CHECK_FALSE(nodes[0].alive); // "b"
}

TEST_CASE("a restart in the midst of a rolling change goes on with it") {
  world w{1};
  w.join("head");
  w.deploy({a_model("m", 3)});
  w.settle();
  auto next = a_model("m", 3);
  next.spec.block_size = 4;
  w.deploy({next});
  w.all_ready();
  w.machine.emplace(2, controller_limits{}, w.remembered, w.now);
  w.run(w.machine->restore(of_models({next}), w.now));
  w.join_again("head");
  CHECK(w.routed() >= 3);
  w.settle();
  CHECK(w.running() == 3);
  CHECK(w.status().status == "RUNNING");
  CHECK(w.status().reason.empty());
}

TEST_CASE("what a joining node has of nothing that is wanted is ended") {
  world w;
  auto& at = w.agents["a"];
  for (auto id : {"app/gone#1", "app/m#x", "app/m#07", "#", ""}) {
    auto& one = at.running[id];
    one.spec.replica = id;
    one.spec.application = "app";
    one.spec.model = std::string{id}.starts_with("app/m") ? "m" : "gone";
    one.report.replica = id;
    one.report.incarnation = 1;
  }
  w.deploy({a_model("m")});
  w.join("a");
  CHECK(w.running_on("a") == std::vector<std::string>{"app/m#1"});
  CHECK(w.stopped == 5);
}

TEST_CASE("a death is told once per incarnation, of this epoch only") {
  world w;
  w.join("a");
  w.deploy({a_model("m")});
  w.settle();
  protocol::death_notice notice;
  notice.node = "a";
  notice.node_epoch = w.agents["a"].epoch - 1;
  notice.replica = "app/m#1";
  notice.incarnation = w.agents["a"].running["app/m#1"].report.incarnation;
  notice.own_fault = true;
  notice.running = {{1, 2}};
  w.run(w.machine->death(notice, w.now));
  CHECK(w.told.empty());
  ++notice.node_epoch;
  w.run(w.machine->death(notice, w.now));
  w.run(w.machine->death(notice, w.now));
  REQUIRE(w.told.size() == 1);
  CHECK(w.told[0] == notice);
  CHECK(w.routed() == 0);
}

TEST_CASE("many changes are one table, and none is lost") {
  world w;
  w.join("a");
  w.deploy({a_model("m", 50)});
  w.pass(1s);
  w.pass(1s);
  w.now += 1s;
  auto tables = w.tables;
  w.all_ready();
  CHECK(w.tables == tables + 1); // the first one at once
  CHECK((w.machine->next_deadline() == w.now + 20ms));
  w.pass(19ms);
  CHECK(w.tables == tables + 1);
  w.pass(1ms);
  CHECK(w.tables == tables + 2);
  CHECK(w.routed() == 50);
  w.pass(1s);
  CHECK(w.tables == tables + 2);
}

TEST_CASE("routers listen where proxy_location says") {
  world w;
  w.join("head");
  w.join("b");
  CHECK(w.agents["b"].last.router);
  deployment wanted;
  wanted.proxies = proxy_location::head_only;
  wanted.settings.root_path = "/x";
  w.deploy(wanted);
  CHECK(w.agents["head"].last.router);
  CHECK_FALSE(w.agents["b"].last.router);
  CHECK(w.machine->table().settings.root_path == "/x");
  w.join("c");
  CHECK_FALSE(w.agents["c"].last.router);
  wanted.proxies = proxy_location::disabled;
  w.deploy(wanted);
  CHECK_FALSE(w.agents["head"].last.router);
  wanted.proxies = proxy_location::every_node;
  w.deploy(wanted);
  CHECK(w.agents["b"].last.router);
}

TEST_CASE("nobody waits after a restart for a node that has stopped") {
  world w;
  w.join("a");
  w.join("b");
  w.lose("a", true);
  CHECK(w.remembered == std::vector<std::string>{"b"});
  CHECK(w.machine->state_of("a") == "lost");
  w.join("a");
  CHECK(w.remembered == std::vector<std::string>{"a", "b"});
  w.lose("a");
  w.join("c");
  CHECK(w.remembered == std::vector<std::string>{"a", "b", "c"});
}

TEST_CASE("lost nodes are remembered for a while, and only so many") {
  world w;
  w.join("a");
  w.join("b");
  CHECK(w.remembered == std::vector<std::string>{"a", "b"});
  w.lose("b");
  CHECK(w.remembered.size() == 2);
  w.pass(600s);
  CHECK(w.remembered == std::vector<std::string>{"a"});
  CHECK(w.machine->status().nodes.size() == 1);
  CHECK_FALSE(w.machine->next_deadline().has_value());
  for (int i = 0; i < 4'100; ++i) {
    auto name = "x" + std::to_string(i);
    w.join(name);
    w.lose(name);
    w.now += 1ms;
  }
  CHECK(w.machine->status().nodes.size() == 4'097);
}

TEST_CASE("resources that replicas take are seen and come back") {
  world w;
  w.agents["a"].self.resources = {{"CPU", 4}, {"fpga", 2}};
  w.join("a");
  auto takes = a_model("m", 2, 0.1);
  takes.demand.bundles[0]["fpga"] = 1;
  w.deploy({takes});
  w.settle();
  auto used = w.machine->status().nodes[0].used;
  REQUIRE(used.size() == 2);
  CHECK(used[0].name == "CPU");
  CHECK(used[0].amount == Approx(0.2));
  CHECK(used[1].amount == Approx(2));
  w.deploy(deployment{});
  CHECK(w.machine->status().nodes[0].used.size() == 2); // still draining
  w.settle();
  CHECK(w.machine->status().nodes[0].used.empty());
}

TEST_CASE("4,096 replicas on 512 nodes are spread, lost, moved and changed") {
  world w;
  for (int i = 0; i < 512; ++i)
    w.join("n" + std::to_string(i), 16);
  w.assignments = 0;
  std::vector<model_deployment> models;
  for (int i = 0; i < 8; ++i)
    models.push_back(a_model("m" + std::to_string(i), 512, 1));
  w.deploy(models);
  CHECK(w.started == 4'096);
  CHECK(w.assignments == 512); // one each
  for (const auto& [name, at] : w.agents)
    REQUIRE(at.running.size() == 8);
  w.settle();
  w.pass(1s);
  w.assignments = 0;
  w.lose("n7");
  CHECK(w.assignments == 8); // the nodes that got its eight
  CHECK(w.running() == 4'096 + 8);
  w.settle();
  w.assignments = 0;
  w.report(w.running_on("n1").front(), replica_phase::failed, "gone");
  w.report(w.running_on("n1").front(), replica_phase::ready);
  CHECK(w.assignments == 0);
  models[0].spec.block_size = 3;
  w.deploy(models);
  w.settle();
  CHECK(w.status().status == "RUNNING");
  std::size_t routed = 0;
  for (const auto& model : w.machine->table().models)
    routed += model.replicas.size();
  CHECK(routed == 4'096);
}

TEST_CASE("names that occur twice and wild numbers break nothing") {
  world w;
  w.join("a");
  auto twice = a_model("m");
  twice.spec.block_size = 9;
  w.deploy({a_model("m"), twice, a_model("none", 0)});
  w.settle();
  CHECK(w.running() == 1);
  REQUIRE(w.machine->status().models.size() == 2);
  CHECK(w.status(1).status == "RUNNING");
  w.run(w.machine->node_lost("nobody", 1, w.now));
  w.run(w.machine->report({}, w.now));
  w.run(w.machine->death({}, w.now));
  auto bare = a_model("bare");
  bare.demand.bundles.clear();
  w.deploy({bare});
  w.settle();
  CHECK(w.running() == 1);
}
