#include "actors/controller/controller.hpp"
#include "actors/controller/router_loads.hpp"
#include "actors/controller/status_query.hpp"
#include "tests/actors/deterministic.hpp"
#include "tests/unit/controller/fake_store.hpp"
#include "tests/unit/controller/world.hpp"

#include <caf/send.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

using namespace troupe;
using namespace troupe::test;
using namespace troupe::protocol;

namespace {

struct agent_log {
  std::vector<node_assignment> assignments;
  std::vector<routing_table> tables;
  std::vector<death_notice> deaths;
  std::vector<others_load> others;
};

node_agent_actor::behavior_type fake_agent(node_agent_actor::pointer,
                                           agent_log* log) {
  return {
      [](register_atom, const codec::bytes&, const replica_actor&) {
        return true;
      },
      [](report_atom, const codec::bytes&) {},
      [=](assign_atom, const codec::bytes& record) {
        log->assignments.push_back(*decode_node_assignment(record));
      },
      [=](table_atom, const codec::bytes& record) {
        log->tables.push_back(*decode_routing_table(record));
      },
      [=](death_atom, const codec::bytes& record) {
        log->deaths.push_back(*decode_death_notice(record));
      },
      [](load_atom, const codec::bytes&) {},
      [log](others_atom, const codec::bytes& record) {
        log->others.push_back(*decode_others_load(record));
      },
      [](watch_atom, const router_actor&, std::uint16_t) {},
      [](drain_atom, std::uint32_t) { return true; },
  };
}

struct head : deterministic {
  fake_store::contents stored;
  head_controller_actor controller;
  gatekeeper gate;
  std::vector<node_agent_actor> agents;

  head() {
    spdlog::set_level(spdlog::level::off);
  }

  ~head() {
    stop();
    for (const auto& agent : agents)
      caf::anon_send_exit(agent, caf::exit_reason::kill);
    settle();
  }

  void start(bool restore) {
    auto made = spawn_controller(system, std::make_unique<fake_store>(stored),
                                 restore, gate);
    REQUIRE(made.has_value());
    controller = *made;
    settle();
  }

  void stop() {
    if (controller)
      caf::anon_send_exit(controller, caf::exit_reason::kill);
    controller = nullptr;
    settle();
  }

  node_agent_actor agent(agent_log& log) {
    agents.push_back(system.spawn(fake_agent, &log));
    return agents.back();
  }

  node_welcome join(const std::string& name, const node_agent_actor& agent,
                    std::vector<running_replica> has = {}) {
    node_joined node;
    node.node = name;
    node.cpus = 4;
    node.incarnation = agent.id();
    node.engines = {"cpu"};
    node.replicas = std::move(has);
    auto answer = self->request(controller, caf::infinite, register_atom::value,
                                encode(node), agent);
    settle();
    node_welcome out;
    answer.receive(
        [&](const codec::bytes& record) { out = *decode_node_welcome(record); },
        [&](const caf::error& why) { FAIL(system.render(why)); });
    settle();
    return out;
  }

  result<std::uint64_t> deploy(const deployment& wanted) {
    result<std::uint64_t> out = error{};
    controller::deploy(system, controller, wanted,
                       [&](auto answer) { out = answer; });
    settle();
    return out;
  }

  void report(const node_assignment& of, std::uint64_t incarnation) {
    replica_news news;
    news.node = of.replicas.at(0).node;
    news.node_epoch = of.node_epoch;
    news.report.replica = of.replicas[0].replica;
    news.report.incarnation = incarnation;
    news.report.phase = replica_phase::ready;
    caf::anon_send(controller, report_atom::value, encode(news));
    settle();
  }

  cluster_status status() {
    cluster_status out;
    query_status(system, controller, [&](auto answer) {
      REQUIRE(answer.has_value());
      out = *answer;
    });
    settle();
    return out;
  }
};

} // namespace

TEST_CASE("an agent is welcomed, told what to run and what routers route by") {
  head h;
  h.start(false);
  agent_log log;
  auto welcome = h.join("head", h.agent(log));
  CHECK(welcome.accepted);
  CHECK(welcome.head_epoch == 1);
  REQUIRE(log.assignments.size() == 1);
  CHECK(log.assignments[0].node_epoch == welcome.node_epoch);
  CHECK(log.tables.size() == 1);
  CHECK(*h.deploy(of_models({a_model("m")})) == 1);
  REQUIRE(log.assignments.size() == 2);
  REQUIRE(log.assignments[1].replicas.size() == 1);
  h.report(log.assignments[1], 5);
  h.advance(20ms);
  REQUIRE(log.tables.back().models.size() == 1);
  CHECK(log.tables.back().models[0].replicas.size() == 1);
  CHECK(h.status().models[0].status == "RUNNING");
  // The nodes are written once, a little later.
  CHECK(h.stored.nodes.empty());
  h.advance(100ms);
  CHECK(h.stored.nodes == std::vector<std::string>{"head"});
  CHECK(h.stored.writes_of_nodes == 1);
}

TEST_CASE("an agent that ends is lost and its replicas move") {
  head h;
  h.start(false);
  agent_log first, second;
  auto a = h.agent(first);
  h.join("a", a);
  h.deploy(of_models({a_model("m")}));
  h.join("b", h.agent(second));
  CHECK(second.assignments.back().replicas.empty());
  caf::anon_send_exit(a, caf::exit_reason::kill);
  h.settle();
  CHECK(second.assignments.back().replicas.size() == 1);
  CHECK_FALSE(h.status().nodes[0].alive);
}

TEST_CASE("an agent that joins twice is lost once") {
  head h;
  h.start(false);
  agent_log log;
  auto a = h.agent(log);
  auto first = h.join("a", a).node_epoch;
  CHECK(h.join("a", a).node_epoch > first);
  agent_log other;
  CHECK_FALSE(h.join("a", h.agent(other)).accepted);
  CHECK(other.assignments.empty());
  CHECK(h.status().nodes[0].alive);
  caf::anon_send_exit(a, caf::exit_reason::kill);
  h.settle();
  CHECK_FALSE(h.status().nodes[0].alive);
  agent_log third;
  CHECK(h.join("a", h.agent(third)).accepted);
  h.settle();
  CHECK(h.status().nodes[0].alive);
}

TEST_CASE("deaths reach every agent") {
  head h;
  h.start(false);
  agent_log first, second;
  auto welcome = h.join("a", h.agent(first));
  h.join("b", h.agent(second));
  death_notice notice;
  notice.node = "a";
  notice.node_epoch = welcome.node_epoch;
  notice.incarnation = 9;
  for (int i = 0; i < 2; ++i)
    caf::anon_send(h.controller, death_atom::value, encode(notice));
  h.settle();
  CHECK(first.deaths == std::vector{notice});
  CHECK(second.deaths == std::vector{notice});
}

TEST_CASE("routers are told whose choices wait at the others") {
  router_loads loads;
  std::uint64_t sequence = 0;
  auto say = [&](const std::string& node, std::vector<tenant_waiting> tenants) {
    router_report report;
    report.node = node;
    report.node_epoch = 1;
    report.incarnation = 7;
    report.sequence = ++sequence;
    auto& load = report.models.emplace_back(router_load{"app", "m", 0, 1});
    for (const auto& one : tenants)
      load.waiting += one.waiting;
    load.tenants = std::move(tenants);
    loads.hear(report);
  };
  auto told = [&](router_loads::time_point now) {
    std::map<std::string, std::vector<tenant_waiting>> out;
    for (const auto& view : loads.due(now))
      out[view.node] = view.others.models.at(0).tenants;
    return out;
  };
  router_loads::time_point now{};
  say("a", {{"loud", 9}, {"quiet", 1}});
  say("b", {{"loud", 2}});
  say("c", {{"quiet", 3}});
  using list = std::vector<tenant_waiting>;
  auto first = told(now);
  CHECK(first["a"] == list{{"quiet", 3}, {"loud", 2}});
  CHECK(first["b"] == list{{"loud", 9}, {"quiet", 4}});
  CHECK(first["c"] == list{{"loud", 11}, {"quiet", 1}});
  // That it is another's is news, though all have as much as before.
  say("b", {{"quiet", 2}});
  auto then = told(now + 100ms);
  CHECK(then.count("b") == 0);
  CHECK(then["c"] == list{{"loud", 9}, {"quiet", 3}});
  list many;
  for (int i = 0; i < 100; ++i)
    many.push_back({"t" + std::to_string(i), 1});
  say("a", many);
  CHECK(told(now + 200ms)["b"].size() == tenants_waiting_max);
  loads.forget("a");
  CHECK(told(now + 300ms)["b"] == list{{"quiet", 3}});
}

TEST_CASE("routers are told what the others hold, without themselves") {
  head on;
  on.start(false);
  agent_log a;
  agent_log b;
  auto epoch_a = on.join("a", on.agent(a)).node_epoch;
  auto epoch_b = on.join("b", on.agent(b)).node_epoch;
  std::uint64_t incarnation = 7;
  auto say = [&](const std::string& node, std::uint64_t epoch,
                 std::uint64_t sequence, std::uint32_t waiting,
                 std::uint64_t tokens) {
    router_report report;
    report.node = node;
    report.node_epoch = epoch;
    report.incarnation = incarnation;
    report.sequence = sequence;
    report.models.push_back({"app", "m", waiting, 3});
    report.tenants.push_back({"team", tokens / 10, tokens});
    caf::anon_send(on.controller, load_atom::value, encode(report));
    on.settle();
  };
  auto pass = [&] {
    on.advance(100ms);
    on.settle();
  };
  auto team = [](const agent_log& of) {
    for (const auto& use : of.others.back().tenants)
      return use.tokens;
    return std::uint64_t{0};
  };
  say("a", epoch_a, 1, 5, 5000);
  say("b", epoch_b, 2, 6, 900'000);
  pass();
  REQUIRE(a.others.size() == 1);
  REQUIRE(b.others.size() == 1);
  CHECK(a.others[0].models == std::vector<router_load>{{"app", "m", 6, 3}});
  CHECK(b.others[0].models == std::vector<router_load>{{"app", "m", 5, 3}});
  CHECK(a.others[0].life != b.others[0].life);
  // What was before somebody was heard of does not count.
  CHECK(team(a) == 0);
  say("b", epoch_b, 1, 9, 0); // late
  pass();
  CHECK(a.others.size() == 1);
  say("b", epoch_b, 3, 0, 900'030);
  pass();
  REQUIRE(a.others.size() == 2);
  CHECK(a.others[1].models == std::vector<router_load>{{"app", "m", 0, 3}});
  CHECK(team(a) == 30);
  CHECK(b.others.size() == 1);
  say("b", epoch_b + 100, 4, 50, 0); // another life
  pass();
  CHECK(a.others.size() == 2);
  // It comes again, for who lost it.
  on.advance(1s);
  say("a", epoch_a, 2, 5, 5000);
  pass();
  CHECK(a.others.size() == 3);
  CHECK(b.others.size() == 2);
  // A router that starts again is told, and takes nothing back.
  auto life = b.others.back().life;
  incarnation = 8;
  say("b", epoch_b, 1, 0, 10);
  pass();
  CHECK(b.others.size() == 3);
  CHECK(b.others.back().life != life);
  CHECK(team(a) == 30);
  say("b", epoch_b, 2, 0, 20);
  pass();
  CHECK(team(a) == 40);
}

TEST_CASE("a restored head adopts what its nodes have") {
  head h;
  h.start(true);
  agent_log log;
  auto agent = h.agent(log);
  h.join("head", agent);
  h.deploy(of_models({a_model("m")}));
  h.advance(100ms);
  auto spec = log.assignments.back().replicas.at(0);
  h.stop();
  h.start(true);
  CHECK(h.status().models.size() == 1);
  log = {};
  running_replica has;
  has.spec = spec;
  has.report.replica = spec.replica;
  has.report.incarnation = 3;
  has.report.phase = replica_phase::ready;
  CHECK(h.join("head", agent, {has}).head_epoch == 2);
  h.advance(20ms);
  REQUIRE(log.assignments.size() == 1);
  CHECK(log.assignments[0].replicas == std::vector{spec});
  CHECK(log.tables.back().models[0].replicas.size() == 1);
  // Not asked to restore, it wants nothing.
  h.stop();
  h.start(false);
  CHECK(h.status().models.empty());
}

TEST_CASE("who came just before the head's end is waited for") {
  head h;
  h.start(false);
  agent_log log;
  h.join("a", h.agent(log));
  CHECK(h.stored.writes_of_nodes == 0); // a few are written at once
  h.stop();
  CHECK(h.stored.nodes == std::vector<std::string>{"a"});
}

TEST_CASE("what was scaled just before the head's end is written down") {
  head h;
  h.start(false);
  auto wanted = of_models({a_model("m")});
  wanted.models[0].external_scaler = true;
  REQUIRE(h.deploy(wanted).has_value());
  h.advance(100ms);
  CHECK(h.stored.targets ==
        std::vector<controller::scale_target>{{"app", "m", 1}});
  caf::anon_send(h.controller, scale_atom::value, std::string{"app"},
                 std::string{"m"}, std::uint32_t{3});
  h.settle();
  CHECK(h.stored.targets[0].replicas == 1); // some are written at once
  h.stop();
  CHECK(h.stored.targets ==
        std::vector<controller::scale_target>{{"app", "m", 3}});
}

TEST_CASE("a wait for remembered nodes ends by the clock") {
  head h;
  h.stored.nodes = {"a", "b"};
  h.stored.saved = {encode(of_models({a_model("m", 2)}))};
  h.start(true);
  agent_log log;
  h.join("a", h.agent(log));
  CHECK(log.assignments.back().replicas.empty());
  h.advance(4'900ms);
  CHECK(log.assignments.back().replicas.empty());
  h.advance(100ms);
  CHECK(log.assignments.back().replicas.size() == 2);
}

TEST_CASE("a deployment that cannot be stored is refused and changes nothing") {
  head h;
  h.start(false);
  h.stored.broken = true;
  auto refused = h.deploy(of_models({a_model("m")}));
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == errc::io);
  CHECK(refused.error().message == "state store: the disk is full");
  CHECK(h.status().models.empty());
  auto other =
      spawn_controller(h.system, std::make_unique<fake_store>(h.stored), true);
  CHECK_FALSE(other.has_value());
  h.stored.broken = false;
  h.stored.saved = {{1, 2, 3}};
  other =
      spawn_controller(h.system, std::make_unique<fake_store>(h.stored), true);
  REQUIRE_FALSE(other.has_value());
  CHECK(other.error().message.find("cannot be restored") != std::string::npos);
}

TEST_CASE(
    "a node that is revoked is heard no more, its replicas go elsewhere") {
  head h;
  std::vector<revocation> all;
  h.gate.revoke = [&](const std::string& node) -> result<decltype(all)> {
    if (node == "bad")
      return error{errc::invalid_argument, "no name"};
    all.push_back({node, static_cast<std::uint32_t>(all.size() + 1)});
    return all;
  };
  h.start(false);
  agent_log one;
  agent_log two;
  h.join("w1", h.agent(one));
  h.join("w2", h.agent(two));
  h.deploy(of_models({a_model("m")}));
  auto& has = one.assignments.back().replicas.empty() ? two : one;
  auto& other = &has == &one ? two : one;
  auto revoke = [&](const std::string& name) {
    result<std::string> out = error{};
    revoke_node(h.system, h.controller, name,
                [&](auto answer) { out = answer; });
    h.settle();
    return out;
  };
  auto before = has.assignments.size();
  CHECK(revoke(&has == &one ? "w1" : "w2").value() == "alive");
  CHECK(has.assignments.size() == before);
  CHECK(other.assignments.back().replicas.size() == 1);
  CHECK(other.assignments.back().revoked == all);
  h.report(has.assignments.back(), 5); // it is not in the cluster
  CHECK(h.status().models[0].replicas_ready == 0);
  CHECK(h.status().nodes.size() == 1);
  CHECK(revoke("w7").value() == "unknown");
  CHECK(revoke("bad").error().code == errc::invalid_argument);
  CHECK(other.assignments.back().revoked.size() == 2);
}

TEST_CASE("applications are deleted by name, and what is wanted can be read") {
  head h;
  h.start(false);
  auto wanted = of_models({a_model("m"), a_model("n")});
  wanted.models[1].spec.application = "other";
  wanted.applications = {{"app", "{}"}, {"other", "{}"}};
  h.deploy(wanted);
  auto remove = [&](const std::string& name) {
    result<std::uint64_t> out = error{};
    delete_application(h.system, h.controller, name,
                       [&](auto answer) { out = answer; });
    h.settle();
    return out;
  };
  auto config = [&] {
    result<deployment> out = error{};
    query_config(h.system, h.controller, [&](auto answer) { out = answer; });
    h.settle();
    return *out;
  };
  CHECK(config() == wanted);
  CHECK(*remove("app") == 2);
  CHECK(config() == without(wanted, "app"));
  auto none = remove("app");
  REQUIRE_FALSE(none.has_value());
  CHECK(none.error().code == errc::not_found);
  CHECK(none.error().message == "there is no application \"app\"");
  CHECK(*remove("") == 3);
  CHECK(config().models.empty());
}

TEST_CASE("a controller that is gone is reported, not waited for") {
  head h;
  h.start(false);
  auto gone = h.controller;
  h.stop();
  std::optional<errc> said;
  query_status(h.system, gone, [&](auto answer) {
    REQUIRE_FALSE(answer.has_value());
    said = answer.error().code;
  });
  h.settle();
  CHECK(said == errc::unavailable);
}

TEST_CASE("messages that cannot be read are refused") {
  head h;
  h.start(false);
  agent_log log;
  auto agent = h.agent(log);
  auto answer =
      h.self->request(h.controller, caf::infinite, register_atom::value,
                      codec::bytes{1, 2, 3}, agent);
  h.settle();
  answer.receive(
      [](const codec::bytes& record) {
        CHECK_FALSE(decode_node_welcome(record)->accepted);
      },
      [](const caf::error&) { FAIL("no answer"); });
  caf::anon_send(h.controller, report_atom::value, codec::bytes{9});
  caf::anon_send(h.controller, death_atom::value, codec::bytes{9});
  h.settle();
  CHECK(h.status().nodes.empty());
  CHECK(log.assignments.empty());
}
