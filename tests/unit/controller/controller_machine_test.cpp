#include "actors/controller/controller_machine.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::controller;
using protocol::replica_phase;

namespace {

model_deployment model(const std::string& name, std::uint32_t replicas = 1) {
  model_deployment out;
  out.spec.application = "app";
  out.spec.model = name;
  out.spec.model_source = "/models/" + name;
  out.route_prefix = "/";
  out.replicas = replicas;
  out.created = 7;
  return out;
}

protocol::node_joined node(const std::string& name, std::uint32_t cpus = 4) {
  protocol::node_joined out;
  out.node = name;
  out.cpus = cpus;
  return out;
}

protocol::replica_report report(const std::string& replica,
                                replica_phase phase,
                                std::uint64_t incarnation = 1,
                                std::uint64_t sequence = 0) {
  protocol::replica_report out;
  out.replica = replica;
  out.phase = phase;
  out.incarnation = incarnation;
  out.load.sequence = sequence;
  out.where = {"127.0.0.1", 4000, 4001, incarnation};
  return out;
}

template <class Command>
std::vector<Command> only(const std::vector<command>& commands) {
  std::vector<Command> out;
  for (const auto& order : commands)
    if (const auto* one = std::get_if<Command>(&order))
      out.push_back(*one);
  return out;
}

} // namespace

TEST_CASE("a deployment starts its replicas and is routed when they are ready") {
  controller_machine machine;
  machine.node_joined(node("head"));
  auto started = only<start_replica>(machine.deploy({{model("m", 2)}}));
  REQUIRE(started.size() == 2);
  CHECK(started[0].spec.replica == "app/m#1");
  CHECK(started[1].spec.replica == "app/m#2");
  CHECK(started[0].spec.node == "head");
  CHECK(started[0].spec.threads == 2); // four cores, two replicas
  CHECK(machine.status().models[0].status == "DEPLOYING");
  CHECK(machine.table().models[0].replicas.empty());

  auto version = machine.table().version;
  CHECK(machine.report(report("app/m#1", replica_phase::loading)).empty());
  auto ready = machine.report(report("app/m#1", replica_phase::ready));
  CHECK(only<publish_table>(ready).size() == 1);
  auto table = machine.table();
  CHECK(table.version > version);
  REQUIRE(table.models[0].replicas.size() == 1);
  CHECK(table.models[0].replicas[0].where.port == 4000);
  CHECK(machine.status().models[0].status == "RUNNING");
  CHECK(machine.status().models[0].reason == "1 of 2 replicas are ready");
}

TEST_CASE("a deployment that comes before any node waits and then starts") {
  controller_machine machine;
  CHECK(only<start_replica>(machine.deploy({{model("m")}})).empty());
  CHECK(machine.status().models[0].status == "PENDING");
  CHECK(machine.status().models[0].reason == "no node has joined yet");
  CHECK(only<start_replica>(machine.node_joined(node("head"))).size() == 1);
}

TEST_CASE("a model that wants a GPU stays pending, says why, others serve") {
  controller_machine machine;
  machine.node_joined(node("head"));
  auto wants_gpu = model("big");
  wants_gpu.needs_gpu = true;
  wants_gpu.accelerator_type = "A10G";
  auto started
    = only<start_replica>(machine.deploy({{wants_gpu, model("small")}}));
  REQUIRE(started.size() == 1);
  CHECK(started[0].spec.model == "small");
  auto status = machine.status().models[0];
  CHECK(status.status == "PENDING");
  CHECK(status.reason
        == "no node can take it (head: needs a GPU of type A10G, the node has "
           "none)");
}

TEST_CASE("counted CPUs and the bound per node are kept") {
  controller_machine machine;
  machine.node_joined(node("head", 4));
  auto hungry = model("m", 3);
  hungry.cpus = 2;
  CHECK(only<start_replica>(machine.deploy({{hungry}})).size() == 2);
  CHECK(machine.status().models[0].reason
        == "no node can take it (head: needs 2 CPUs, 0 of 4 are free)");
  auto bounded = model("m", 3);
  bounded.replicas_per_node_max = 1;
  controller_machine other;
  other.node_joined(node("head", 4));
  CHECK(only<start_replica>(other.deploy({{bounded}})).size() == 1);
  CHECK(other.status().models[0].reason
        == "no node can take it (head: max_replicas_per_node is 1)");
}

TEST_CASE("a replica that dies leaves the table and comes back with its new "
          "life") {
  controller_machine machine;
  machine.node_joined(node("head"));
  machine.deploy({{model("m")}});
  machine.report(report("app/m#1", replica_phase::ready, 1, 5));
  auto failed = report("app/m#1", replica_phase::failed, 1, 6);
  failed.reason = "killed by SIGKILL";
  CHECK(only<publish_table>(machine.report(failed)).size() == 1);
  CHECK(machine.table().models[0].replicas.empty());
  CHECK(machine.status().models[0].status == "UNHEALTHY");
  CHECK(machine.status().models[0].reason == "app/m#1: killed by SIGKILL");
  // The new process counts its reports from the beginning.
  machine.report(report("app/m#1", replica_phase::ready, 2, 0));
  REQUIRE(machine.table().models[0].replicas.size() == 1);
  CHECK(machine.table().models[0].replicas[0].where.incarnation == 2);
}

TEST_CASE("late reports of a life change nothing") {
  controller_machine machine;
  machine.node_joined(node("head"));
  machine.deploy({{model("m")}});
  machine.report(report("app/m#1", replica_phase::ready, 1, 5));
  CHECK(machine.report(report("app/m#1", replica_phase::loading, 1, 4)).empty());
  CHECK(machine.table().models[0].replicas.size() == 1);
  CHECK(machine.report(report("other#1", replica_phase::ready)).empty());
}

TEST_CASE("the end of a replica that had reported its load is believed") {
  controller_machine machine;
  machine.node_joined(node("head"));
  machine.deploy({{model("m")}});
  machine.report(report("app/m#1", replica_phase::ready, 1, 5));
  REQUIRE(machine.table().models[0].replicas.size() == 1);
  // The node agent says so, without a load.
  auto ended = machine.report(report("app/m#1", replica_phase::failed, 1, 0));
  CHECK(only<publish_table>(ended).size() == 1);
  CHECK(machine.table().models[0].replicas.empty());
}

TEST_CASE("a model whose replicas are given up is DEPLOY_FAILED with the "
          "reason") {
  controller_machine machine;
  machine.node_joined(node("head"));
  machine.deploy({{model("m")}});
  auto failed = report("app/m#1", replica_phase::failed);
  failed.budget_spent = true;
  failed.reason = "model.gguf: bad magic";
  // Routers must learn the reason.
  CHECK(only<publish_table>(machine.report(failed)).size() == 1);
  CHECK(machine.table().models[0].status == "DEPLOY_FAILED");
  CHECK(machine.table().models[0].reason == "app/m#1: model.gguf: bad magic");
}

TEST_CASE("a changed file changes only what changed") {
  controller_machine machine;
  machine.node_joined(node("head"));
  machine.deploy({{model("a"), model("b"), model("c")}});
  for (auto id : {"app/a#1", "app/b#1", "app/c#1"})
    machine.report(report(id, replica_phase::ready));
  auto changed = model("b");
  changed.spec.max_num_seqs = 8;
  auto same = model("a");
  same.created = 99;
  auto commands = machine.deploy({{same, changed}});
  auto stopped = only<stop_replica>(commands);
  REQUIRE(stopped.size() == 2);
  CHECK(stopped[0].replica == "app/b#1");
  CHECK(stopped[1].replica == "app/c#1");
  auto started = only<start_replica>(commands);
  REQUIRE(started.size() == 1);
  CHECK(started[0].spec.max_num_seqs == 8);
  auto table = machine.table();
  REQUIRE(table.models.size() == 2);
  CHECK(table.models[0].replicas.size() == 1);
  CHECK(table.models[0].created == 7);
  CHECK(table.models[1].replicas.empty());
}

TEST_CASE("fewer replicas stop the last ones, more start what is missing") {
  controller_machine machine;
  machine.node_joined(node("head"));
  machine.deploy({{model("m", 3)}});
  auto fewer = machine.deploy({{model("m", 1)}});
  auto stopped = only<stop_replica>(fewer);
  REQUIRE(stopped.size() == 2);
  CHECK(std::all_of(stopped.begin(), stopped.end(),
                    [](const auto& s) { return s.replica != "app/m#1"; }));
  auto more = only<start_replica>(machine.deploy({{model("m", 2)}}));
  REQUIRE(more.size() == 1);
  CHECK(more[0].spec.replica == "app/m#2");
}

TEST_CASE("a node that is lost takes its replicas along") {
  controller_machine machine;
  machine.node_joined(node("a", 2));
  machine.deploy({{model("m")}});
  machine.report(report("app/m#1", replica_phase::ready));
  auto commands = machine.node_lost("a");
  CHECK(only<publish_table>(commands).size() == 1);
  CHECK(machine.table().models[0].replicas.empty());
  CHECK(only<start_replica>(machine.node_joined(node("b"))).size() == 1);
}

TEST_CASE("a deployment and a status read back as they were written") {
  deployment wanted{{model("m", 2), model("n")}};
  wanted.models[0].needs_gpu = true;
  wanted.models[0].note = "a \"note\"\n";
  wanted.models[1].spec.environment = {{"A", "1"}};
  CHECK(*decode_deployment(encode(wanted)) == wanted);
  controller_machine machine;
  machine.node_joined(node("head"));
  machine.deploy(wanted);
  auto status = machine.status();
  CHECK(*protocol::decode_cluster_status(protocol::encode(status)) == status);
  auto json = to_json(status);
  CHECK(json.find("\"note\":\"a \\\"note\\\"\\u000a\"") != std::string::npos);
}
