#include "autoscaler/node_fleet.hpp"
#include "tests/unit/controller/world.hpp"

#include <random>
#include <set>

// The machine for nodes with the controller's machine: what one says the other
// does, a provider brings and loses nodes as it likes, and heads die.

using namespace troupe;
using namespace troupe::test;
using autoscaler::node_type;
namespace fleet = autoscaler::fleet;

namespace {

struct everything : world {
  std::mt19937 random;
  fleet::options options;
  std::optional<fleet::machine> nodes;
  std::uint64_t head = 0;
  std::vector<protocol::asked_node> disk;       ///< of the nodes
  deployment wanted;                            ///< on disk, too
  std::map<std::string, std::string> processes; ///< that live, and their types
  std::set<std::string> brought;                ///< ever
  std::set<std::string> told_to_end;
  bool quiet = false; ///< nothing fails any more
  std::deque<fleet::command> to_do;
  std::deque<protocol::nodes_view> views;

  explicit everything(unsigned seed) : random(seed) {
    options.types = {{"small", {{"CPU", 2}}, {"cpu"}, chance(50) ? 1u : 0u, 4},
                     {"big", {{"CPU", 6}}, {"cpu"}, 0, 3}};
    options.max_workers = 5;
    options.idle_timeout = 20s;
    options.rest = 5s;
    options.rest_max = 20s;
    start();
  }

  std::uint32_t below(unsigned n) {
    return static_cast<std::uint32_t>(random() % n);
  }
  bool chance(unsigned percent) {
    return below(100) < percent;
  }

  void start() {
    std::vector<std::string> names;
    for (const auto& [name, at] : agents)
      names.push_back(name);
    machine.emplace(++head, controller_limits{}, remembered, now);
    tell(machine->restore(wanted, now));
    nodes.emplace(options, head);
    tell(machine->watch_nodes(now));
    std::vector<node::living_node> living;
    for (const auto& [node, type] : processes)
      living.push_back({node, false});
    take(nodes->begin(disk, living, now));
    enter("head", 2);
    for (const auto& name : names)
      if (name != "head" && agents.at(name).connected)
        enter_again(name);
  }

  /// The head is killed: what was on its way is lost.
  void kill_head() {
    to_do.clear();
    views.clear();
    told_to_end.clear(); // it may or may not have been heard
    start();
  }

  void tell(const commands& orders) {
    run(orders);
    if (std::any_of(orders.begin(), orders.end(), [](const auto& order) {
          return std::holds_alternative<tell_nodes>(order);
        }))
      views.push_back(view);
  }

  void enter(const std::string& name, std::uint32_t cpus) {
    auto& at = agents[name];
    at.self.node = name;
    at.self.cpus = cpus;
    at.self.engines = {"cpu"};
    at.self.incarnation = 1;
    enter_again(name);
  }

  void enter_again(const std::string& name) {
    auto& at = agents.at(name);
    auto says = at.self;
    for (const auto& [id, one] : at.running)
      says.replicas.push_back(one);
    commands orders;
    auto welcome = machine->join(says, orders, now);
    REQUIRE(welcome.accepted);
    at.epoch = welcome.node_epoch;
    at.self.head_epoch = welcome.head_epoch;
    at.connected = true;
    at.ending.clear();
    tell(orders);
  }

  void take(const fleet::commands& orders) {
    to_do.insert(to_do.end(), orders.begin(), orders.end());
  }

  /// One thing that is on its way arrives.
  void deliver() {
    if (!views.empty() && (to_do.empty() || chance(50))) {
      auto one = std::move(views.front());
      views.pop_front();
      take(nodes->know(std::move(one), now));
      return;
    }
    if (to_do.empty())
      return;
    auto one = std::move(to_do.front());
    to_do.pop_front();
    std::visit([this](const auto& what) { carry_out(what); }, one);
  }

  void carry_out(const fleet::store_nodes& list) {
    auto done = quiet || chance(90);
    if (done) {
      std::vector<std::string> gone;
      for (const auto& old : disk)
        if (std::find(list.nodes.begin(), list.nodes.end(), old) ==
            list.nodes.end())
          gone.push_back(old.node);
      disk = list.nodes;
      tell(machine->bury(gone, now));
    }
    take(nodes->stored(done, now));
  }

  void carry_out(const fleet::ask_for& wish) {
    REQUIRE(std::find(disk.begin(), disk.end(),
                      protocol::asked_node{wish.node, wish.type}) !=
            disk.end());
    REQUIRE(brought.insert(wish.node).second); // a name is given once
    if (quiet || chance(85))
      processes[wish.node] = wish.type;
    else
      take(nodes->ended(wish.node, "cannot be run", now));
  }

  void carry_out(const fleet::close_node& order) {
    commands orders;
    auto done = machine->close_node(order.node, order.closed, orders, now);
    if (done && order.closed && agents.contains(order.node))
      REQUIRE(agents.at(order.node).running.empty());
    tell(orders);
    if (order.closed)
      take(nodes->closed(order.node, done, now));
  }

  void carry_out(const fleet::end_node& order) {
    if (processes.contains(order.node)) // it may be gone by itself
      told_to_end.insert(order.node);
  }

  void die(const std::string& node, const std::string& why) {
    processes.erase(node);
    told_to_end.erase(node);
    if (agents.contains(node)) {
      auto epoch = agents.at(node).epoch;
      auto was = agents.at(node).connected;
      agents.erase(node);
      if (was)
        tell(machine->node_lost(node, epoch, now));
    }
    take(nodes->ended(node, why, now));
  }

  void deploy_some() {
    std::vector<model_deployment> models;
    for (unsigned m = 0; m < below(4); ++m)
      models.push_back(
          a_model("m" + std::to_string(m), 1 + below(4), 1 + below(7)));
    wanted = of_models(models);
    tell(machine->deploy(wanted, now));
  }

  void replicas_go_on() {
    for (auto& [id, node] : with_phase(replica_phase::starting)) {
      auto& at = agents.at(node);
      if (!at.running.contains(id))
        continue; // what was said of others ended it
      auto& report = at.running.at(id).report;
      report.phase = replica_phase::ready;
      report.where = {"127.0.0.1", 1, 2, report.incarnation};
      tell(machine->report({node, at.epoch, report}, now));
    }
    for (auto& [name, at] : agents)
      for (auto& ended : std::exchange(at.ending, {})) {
        ended.report.phase = replica_phase::stopped;
        tell(machine->report({name, at.epoch, ended.report}, now));
      }
  }

  void pass(milliseconds time) {
    now += time;
    tell(machine->tick(now));
    take(nodes->tick(now));
  }

  /// Nodes come and go as they should, or not.
  void live() {
    for (auto [node, type] : std::map{processes}) {
      auto here = agents.contains(node);
      if (told_to_end.contains(node) && (quiet || chance(40)))
        die(node, "");
      else if (!here && (quiet || chance(20)))
        enter(node, type == "small" ? 2 : 6);
      else if (here && !agents.at(node).connected && (quiet || chance(30)))
        enter_again(node);
      else if (here && !quiet && chance(2))
        die(node, "killed by signal 9");
      else if (here && !quiet && agents.at(node).connected && chance(2)) {
        agents.at(node).connected = false;
        tell(machine->node_lost(node, agents.at(node).epoch, now));
      }
    }
  }

  void check() {
    std::size_t counted = 0;
    for (const auto& [node, type] : processes)
      counted += !told_to_end.contains(node);
    REQUIRE(counted <= options.max_workers);
    for (const auto& [node, type] : processes)
      REQUIRE(std::any_of(disk.begin(), disk.end(),
                          [&](const auto& one) { return one.node == node; }));
  }

  void step() {
    live();
    replicas_go_on();
    for (int i = 0; i < 4; ++i)
      deliver();
    pass(milliseconds{below(1'500)});
    check();
  }

  /// After a long quiet time.
  void check_rest() {
    REQUIRE(views.empty());
    REQUIRE(to_do.empty());
    REQUIRE(told_to_end.empty());
    auto shown = nodes->status(now);
    std::map<std::string, std::uint32_t> count;
    for (const auto& one : shown.nodes) {
      INFO(one.node << " " << one.state);
      REQUIRE((one.state == "joined" || one.state == "idle"));
      REQUIRE(processes.contains(one.node));
      REQUIRE(machine->state_of(one.node) == "alive");
      ++count[one.type];
    }
    REQUIRE(shown.nodes.size() == processes.size());
    REQUIRE(disk.size() == processes.size());
    REQUIRE(machine->status().nodes.size() == processes.size() + 1);
    // Idle are no more than the minimum.
    for (const auto& one : shown.nodes)
      if (one.state == "idle")
        REQUIRE(count[one.type] <=
                options.types[one.type == "big"].min_workers);
    // What waits fits no type, or none of it may come.
    auto full = processes.size() >= options.max_workers;
    for (const auto& demand : machine->demands(now)) {
      auto cpus = demand.bundles.at(0).amounts.at(0).amount;
      for (const auto& type : options.types)
        if (cpus <= type.resources.at("CPU")) {
          INFO(demand.model << " waits for " << cpus);
          REQUIRE((full || count[type.name] >= type.max_workers));
        }
    }
  }
};

} // namespace

TEST_CASE("nodes come for what the controller cannot place, whoever dies") {
  for (unsigned seed = 1; seed <= 150; ++seed) {
    INFO("seed " << seed);
    everything all{seed};
    for (int step = 0; step < 120; ++step) {
      if (all.chance(5))
        all.deploy_some();
      if (all.chance(2))
        all.kill_head();
      all.step();
    }
    all.quiet = true;
    for (int step = 0; step < 200; ++step)
      all.step();
    for (int i = 0; i < 100; ++i)
      all.deliver();
    all.check_rest();
  }
}
