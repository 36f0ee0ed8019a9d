#include "actors/controller/controller.hpp"
#include "actors/controller/status_query.hpp"
#include "autoscaler/autoscaler.hpp"
#include "tests/actors/deterministic.hpp"
#include "tests/unit/controller/fake_store.hpp"
#include "tests/unit/controller/world.hpp"

#include <caf/send.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <spdlog/spdlog.h>

using namespace troupe;
using namespace troupe::protocol;
using test::a_model;
using test::of_models;
using namespace std::chrono_literals;

namespace {

struct fake_provider : node::node_provider {
  gone tell;
  std::map<std::string, std::string> nodes; ///< type
  std::vector<std::string> ending;

  std::vector<node::living_node> living() override {
    return {};
  }
  void listen(gone to) override {
    tell = std::move(to);
  }
  void ask(const std::string& node, const std::string& type) override {
    REQUIRE(nodes.emplace(node, type).second);
  }
  void end(const std::string& node) override {
    ending.push_back(node);
  }
  void end_all(std::chrono::milliseconds) override {
  }
};

node_agent_actor::behavior_type fake_agent(node_agent_actor::pointer,
                                           std::vector<node_assignment>* log) {
  return {
      [](register_atom, const codec::bytes&, const replica_actor&) {
        return true;
      },
      [](report_atom, const codec::bytes&) {},
      [=](assign_atom, const codec::bytes& record) {
        log->push_back(*decode_node_assignment(record));
      },
      [](table_atom, const codec::bytes&) {},
      [](death_atom, const codec::bytes&) {},
      [](load_atom, const codec::bytes&) {},
      [](others_atom, const codec::bytes&) {},
      [](watch_atom, const router_actor&, std::uint16_t) {},
      [](drain_atom, std::uint32_t) { return true; },
  };
}

/// A controller and an autoscaler that brings nodes, on one clock.
struct head : test::deterministic {
  test::fake_store::contents stored;
  std::shared_ptr<fake_provider> provider = std::make_shared<fake_provider>();
  std::vector<node::living_node> living;
  head_controller_actor controller;
  autoscaler_actor autoscaler;
  std::map<std::string, node_agent_actor> agents;
  std::map<std::string, std::vector<node_assignment>> assignments;

  head() {
    spdlog::set_level(spdlog::level::off);
  }

  ~head() {
    stop();
    for (const auto& [node, agent] : agents)
      caf::anon_send_exit(agent, caf::exit_reason::kill);
    settle();
    provider->tell = nullptr;
  }

  void start() {
    auto made = controller::spawn_controller(
        system, std::make_unique<test::fake_store>(stored), true);
    REQUIRE(made.has_value());
    controller = *made;
    autoscaler::node_bringing bringing;
    bringing.options.types = {{"small", {{"CPU", 2}}, {"cpu"}, 0, 4}};
    bringing.options.idle_timeout = 60s;
    bringing.provider = provider;
    bringing.living = living;
    autoscaler = autoscaler::spawn_autoscaler(system, controller, bringing);
    settle();
  }

  void stop() {
    if (controller)
      caf::anon_send_exit(controller, caf::exit_reason::kill);
    controller = nullptr;
    settle();
    autoscaler = nullptr;
  }

  void join(const std::string& name, std::uint32_t cpus,
            std::vector<running_replica> has = {}) {
    auto& agent = agents[name];
    if (!agent)
      agent = system.spawn(fake_agent, &assignments[name]);
    node_joined node;
    node.node = name;
    node.cpus = cpus;
    node.incarnation = agent.id();
    node.engines = {"cpu"};
    node.replicas = std::move(has);
    auto answer = self->request(controller, caf::infinite, register_atom::value,
                                encode(node), agent);
    settle();
    answer.receive(
        [&](const codec::bytes& record) {
          REQUIRE(decode_node_welcome(record)->accepted);
        },
        [&](const caf::error& why) { FAIL(system.render(why)); });
    advance(20ms);
  }

  void leave(const std::string& name, const std::string& why) {
    caf::anon_send_exit(agents.at(name), caf::exit_reason::user_shutdown);
    agents.erase(name);
    provider->nodes.erase(name);
    provider->tell(name, why);
    settle();
  }

  void deploy(const controller::deployment& wanted) {
    controller::deploy(system, controller, wanted,
                       [](auto answer) { REQUIRE(answer.has_value()); });
    settle();
    advance(20ms);
  }

  cluster_status status() {
    cluster_status out;
    controller::query_status(system, controller, [&](auto answer) {
      REQUIRE(answer.has_value());
      out = *answer;
    });
    settle();
    return out;
  }

  std::string state_of(const std::string& node) {
    for (const auto& one : status().fleet.nodes)
      if (one.node == node)
        return one.state;
    return {};
  }
};

using nodes = std::map<std::string, std::string>;

} // namespace

TEST_CASE("a demand becomes a node, which is ended when it is idle") {
  head h;
  h.start();
  h.join("head", 1);
  h.deploy(of_models({a_model("m", 1, 2)}));
  CHECK(h.provider->nodes == nodes{{"small-1-1", "small"}});
  CHECK(h.stored.asked.size() == 1);
  auto shown = h.status();
  REQUIRE(shown.demands.size() == 1);
  CHECK(shown.demands[0].reason.find("head has 1 of 1 CPU") !=
        std::string::npos);
  CHECK(h.state_of("small-1-1") == "requested");
  h.join("small-1-1", 2);
  REQUIRE(h.assignments["small-1-1"].back().replicas.size() == 1);
  CHECK(h.status().demands.empty());
  CHECK(h.state_of("small-1-1") == "joined");
  h.advance(600s);
  CHECK(h.provider->ending.empty());

  auto was = h.assignments["small-1-1"].back();
  h.deploy(of_models({}));
  replica_news gone;
  gone.node = "small-1-1";
  gone.node_epoch = was.node_epoch;
  gone.report.replica = was.replicas[0].replica;
  gone.report.phase = replica_phase::stopped;
  caf::anon_send(h.controller, report_atom::value, encode(gone));
  h.advance(20ms);
  CHECK(h.state_of("small-1-1") == "idle");
  h.advance(60s);
  CHECK(h.provider->ending == std::vector<std::string>{"small-1-1"});
  CHECK(h.state_of("small-1-1") == "ending");
  h.leave("small-1-1", "");
  CHECK(h.stored.asked.empty());
  CHECK(h.status().fleet.nodes.empty());
  CHECK(h.status().nodes.size() == 1); // it is not waited for
}

TEST_CASE("on a full disk nobody is asked, until there is room again") {
  head h;
  h.start();
  h.join("head", 1);
  h.deploy(of_models({a_model("m", 1, 2)}));
  h.provider->tell("small-1-1", "ended with status 1");
  h.provider->nodes.clear();
  h.settle();
  h.stored.broken = true;
  h.advance(30s); // its rest is over
  CHECK(h.provider->nodes.empty());
  h.advance(3s);
  CHECK(h.provider->nodes.empty());
  h.stored.broken = false;
  h.advance(1s);
  CHECK(h.provider->nodes.size() == 1);
  auto types = h.status().fleet.types;
  REQUIRE(types.size() == 1);
  CHECK(types[0].failures == 1);
  CHECK(types[0].reason == "ended with status 1");
}

TEST_CASE("a head that starts again keeps the node that it asked for") {
  head h;
  h.start();
  h.join("head", 1);
  h.deploy(of_models({a_model("m", 1, 2)}));
  REQUIRE(h.provider->nodes.size() == 1);
  h.stop();
  h.agents.clear();
  h.living = {{"small-1-1"}, {"small-0-5"}};
  h.start();
  CHECK(h.provider->ending == std::vector<std::string>{"small-0-5"});
  h.join("head", 1);
  h.advance(5s);
  CHECK(h.provider->nodes.size() == 1);
  CHECK(h.state_of("small-1-1") == "requested");
  h.join("small-1-1", 2);
  CHECK(h.assignments["small-1-1"].back().replicas.size() == 1);
  CHECK(h.provider->nodes.size() == 1);
}
