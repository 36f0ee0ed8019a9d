#pragma once

#include "actors/controller/controller_machine.hpp"

#include <catch2/catch.hpp>

#include <algorithm>

namespace troupe::test {

using namespace controller;
using protocol::replica_phase;
using namespace std::chrono_literals;

inline model_deployment a_model(const std::string& name,
                                std::uint32_t replicas = 1, double cpus = 0) {
  model_deployment out;
  out.spec.application = "app";
  out.spec.model = name;
  out.spec.model_source = "/models/" + name;
  out.route_prefix = "/";
  out.replicas = replicas;
  out.created = 7;
  out.demand.bundles = {cpus > 0 ? amounts{{"CPU", cpus}} : amounts{}};
  return out;
}

inline deployment of_models(std::vector<model_deployment> models) {
  deployment out;
  out.models = std::move(models);
  return out;
}

/// It has failed, and its process is gone.
inline bool has_no_process(const protocol::replica_report& report) {
  return report.phase == replica_phase::failed && report.pid == 0;
}

/// A controller machine and node agents that do as it says at once: what is
/// assigned is started, what is not is ended. Replicas get ready, and ends are
/// reported, when a test says so.
class world {
public:
  struct agent {
    protocol::node_joined self;
    std::uint64_t epoch = 0;
    protocol::node_assignment last;
    std::map<std::string, protocol::running_replica> running;
    std::vector<protocol::running_replica> ending;
    bool connected = true;
  };

  time_point now{time_point::duration{1'000'000'000}};
  std::optional<controller_machine> machine;
  std::map<std::string, agent> agents;
  std::vector<std::string> remembered;
  std::vector<protocol::death_notice> told;
  std::vector<scale_target> targets;
  std::vector<protocol::replica_load_news> loads;
  scaled_models scaled;
  protocol::nodes_view view;
  std::size_t tables = 0, assignments = 0, started = 0, stopped = 0, tuned = 0;
  std::uint64_t incarnations = 100;

  explicit world(std::uint64_t epoch = 1, std::vector<std::string> nodes = {}) {
    machine.emplace(epoch, controller_limits{}, nodes, now);
  }

  void run(const commands& orders) {
    for (const auto& order : orders) {
      if (auto* to = std::get_if<send_assignment>(&order))
        obey(agents.at(to->node), to->assignment);
      else if (auto* death = std::get_if<forward_death>(&order))
        told.push_back(death->notice);
      else if (auto* nodes = std::get_if<remember_nodes>(&order))
        remembered = nodes->nodes;
      else if (auto* kept = std::get_if<remember_targets>(&order))
        targets = kept->targets;
      else if (auto* load = std::get_if<tell_load>(&order))
        loads.push_back(load->news);
      else if (std::holds_alternative<tell_nodes>(order))
        view = machine->nodes(now);
      else if (std::holds_alternative<tell_scaled>(order))
        scaled = machine->scaled();
      else
        ++tables;
    }
  }

  protocol::node_welcome join(const std::string& name, std::uint32_t cpus = 4,
                              std::uint64_t incarnation = 1) {
    auto& at = agents[name];
    at.self.node = name;
    at.self.cpus = cpus;
    at.self.engines = {"cpu"};
    at.self.incarnation = incarnation;
    return join_again(name);
  }

  protocol::node_welcome join_again(const std::string& name) {
    auto& at = agents[name];
    auto says = at.self;
    for (auto& one : std::exchange(at.ending, {})) {
      if (has_no_process(one.report))
        continue;
      one.report.phase = replica_phase::draining;
      at.ending.push_back(one);
      says.replicas.push_back(one);
    }
    for (const auto& [id, one] : at.running)
      says.replicas.push_back(one);
    commands orders;
    auto welcome = machine->join(says, orders, now);
    if (welcome.accepted) {
      at.epoch = welcome.node_epoch;
      at.self.head_epoch = welcome.head_epoch;
      at.connected = true;
    }
    run(orders);
    return welcome;
  }

  void lose(const std::string& name, bool has_stopped = false) {
    agents.at(name).connected = false;
    run(machine->node_lost(name, agents.at(name).epoch, now, has_stopped));
  }

  void deploy(deployment wanted) {
    run(machine->deploy(std::move(wanted), now));
  }

  void deploy(std::vector<model_deployment> models) {
    deploy(of_models(std::move(models)));
  }

  void pass(milliseconds time) {
    now += time;
    run(machine->tick(now));
  }

  agent& agent_of(const std::string& id) {
    for (auto& [name, at] : agents)
      if (at.running.contains(id))
        return at;
    FAIL("nobody runs " << id);
    throw 0;
  }

  void report(const std::string& id, replica_phase phase,
              const std::string& reason = {}, bool spent = false) {
    auto& at = agent_of(id);
    auto& last = at.running.at(id).report;
    if (last.phase == replica_phase::failed && phase != replica_phase::failed)
      last.incarnation = ++incarnations;
    last.phase = phase;
    last.reason = reason;
    last.budget_spent = spent;
    last.where = {"127.0.0.1", 4000, 4001, last.incarnation};
    run(machine->report({at.self.node, at.epoch, last}, now));
  }

  /// All that was started is ready.
  void all_ready() {
    for (auto& [id, node] : with_phase(replica_phase::starting))
      if (agents.at(node).connected && agents.at(node).running.contains(id))
        report(id, replica_phase::ready);
  }

  /// All that was drained has ended.
  void all_ended() {
    for (auto& [name, at] : agents)
      for (auto& ended : std::exchange(at.ending, {})) {
        ended.report.phase = replica_phase::stopped;
        run(machine->report({name, at.epoch, ended.report}, now));
      }
  }

  /// Until nothing changes any more.
  void settle() {
    for (int i = 0; i < 200; ++i) {
      auto before = std::pair{started, stopped};
      all_ready();
      all_ended();
      if (before == std::pair{started, stopped} &&
          with_phase(replica_phase::starting).empty())
        return;
    }
    FAIL("it never settles");
  }

  std::vector<std::pair<std::string, std::string>>
  with_phase(replica_phase phase) const {
    std::vector<std::pair<std::string, std::string>> out;
    for (const auto& [name, at] : agents)
      for (const auto& [id, one] : at.running)
        if (at.connected && one.report.phase == phase)
          out.emplace_back(id, name);
    return out;
  }

  std::vector<std::string> running_on(const std::string& name) const {
    std::vector<std::string> out;
    for (const auto& [id, one] : agents.at(name).running)
      out.push_back(id);
    return out;
  }

  std::size_t running() const {
    std::size_t out = 0;
    for (const auto& [name, at] : agents)
      out += at.running.size();
    return out;
  }

  std::size_t routed(std::size_t model = 0) const {
    return machine->table().models.at(model).replicas.size();
  }

  protocol::model_status status(std::size_t model = 0) const {
    return machine->status().models.at(model);
  }

private:
  void obey(agent& at, const protocol::node_assignment& orders) {
    ++assignments;
    REQUIRE(orders.node_epoch == at.epoch);
    if (orders.node_epoch == at.last.node_epoch)
      REQUIRE(orders.sequence > at.last.sequence);
    at.last = orders;
    std::map<std::string, protocol::replica_spec> wanted;
    for (const auto& spec : orders.replicas) {
      REQUIRE(spec.node == at.self.node);
      REQUIRE(wanted.emplace(spec.replica, spec).second);
    }
    for (auto i = at.running.begin(); i != at.running.end();) {
      if (wanted.contains(i->first)) {
        ++i;
        continue;
      }
      at.ending.push_back(i->second);
      i = at.running.erase(i);
      ++stopped;
    }
    for (const auto& [id, spec] : wanted) {
      auto [i, fresh] = at.running.try_emplace(id);
      if (fresh) {
        for (const auto& old : at.ending)
          REQUIRE(old.spec.replica != id);
        i->second.report.replica = id;
        i->second.report.incarnation = ++incarnations;
        i->second.report.node = at.self.node;
        ++started;
      } else if (!(i->second.spec == spec)) {
        if (spec.part == 0)
          REQUIRE(protocol::same_process(i->second.spec, spec));
        ++tuned;
      }
      i->second.spec = spec;
    }
  }
};

/// What the status shows as used of a node.
inline double used_of(const world& w, const std::string& name,
                      const std::string& what = "CPU") {
  for (const auto& node : w.machine->status().nodes)
    if (node.node.node == name)
      for (const auto& [of, amount] : node.used)
        if (of == what)
          return amount;
  return 0;
}

} // namespace troupe::test
