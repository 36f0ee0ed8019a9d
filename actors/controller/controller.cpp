#include "actors/controller/controller.hpp"

#include "actors/controller/controller_machine.hpp"

#include <caf/all.hpp>
#include <map>
#include <set>
#include <spdlog/spdlog.h>

namespace troupe::controller {

using namespace protocol;

namespace {

struct controller_state {
  explicit controller_state(controller_actor::pointer self) : self(self) {
    // nop
  }

  void join(const codec::bytes& record, const node_agent_actor& agent);
  void take_report(const codec::bytes& record);
  void add_router(const table_sink_actor& router);
  caf::result<std::uint64_t> deploy(const codec::bytes& record);
  void keep_times(deployment& wanted);
  void down(const caf::down_msg& news);
  void execute(const std::vector<command>& commands);
  void publish();

  controller_actor::pointer self;
  std::unique_ptr<state_store> store;
  controller_machine machine;
  std::map<std::string, node_agent_actor> agents; ///< by node
  std::set<table_sink_actor> routers;
  static inline const char* name = "controller";
};

void controller_state::join(const codec::bytes& record,
                            const node_agent_actor& agent) {
  auto node = decode_node_joined(record);
  if (!node) {
    spdlog::error("a node's registration was refused: {}",
                  node.error().message);
    return;
  }
  spdlog::info("node {} joined: {} CPUs, {} MiB, {} GPUs", node->node,
               node->cpus, node->memory_bytes >> 20, node->gpus);
  self->monitor<caf::message_priority::high>(agent);
  agents.insert_or_assign(node->node, agent);
  execute(machine.node_joined(std::move(*node)));
}

void controller_state::take_report(const codec::bytes& record) {
  auto report = decode_replica_report(record);
  if (report)
    execute(machine.report(*report));
  else
    spdlog::error("a replica's report was refused: {}",
                  report.error().message);
}

void controller_state::add_router(const table_sink_actor& router) {
  self->monitor<caf::message_priority::high>(router);
  routers.insert(router);
  self->send(router, table_atom::value, encode(machine.table()));
}

caf::result<std::uint64_t>
controller_state::deploy(const codec::bytes& record) {
  auto wanted = decode_deployment(record);
  if (!wanted)
    return caf::make_error(caf::sec::invalid_argument,
                           wanted.error().message);
  keep_times(*wanted);
  auto version = store->save(encode(*wanted));
  if (!version)
    return caf::make_error(caf::sec::runtime_error, version.error().message);
  spdlog::info("deployment {}: {} models", *version, wanted->models.size());
  execute(machine.deploy(std::move(*wanted)));
  return *version;
}

/// Models that the store knows were created when it says; so that an equal file
/// is an equal deployment, also after a restart.
void controller_state::keep_times(deployment& wanted) {
  auto stored = store->latest();
  if (!stored || !*stored)
    return;
  auto before = decode_deployment((*stored)->record);
  if (!before)
    return;
  for (auto& model : wanted.models)
    for (const auto& old : before->models)
      if (old.spec.application == model.spec.application &&
          old.spec.model == model.spec.model)
        model.created = old.created;
}

void controller_state::down(const caf::down_msg& news) {
  std::erase_if(routers, [&](const auto& router) {
    return router.address() == news.source;
  });
  for (auto& [node, agent] : agents) {
    if (agent.address() != news.source)
      continue;
    if (news.reason == caf::exit_reason::user_shutdown)
      spdlog::info("node {} has stopped", node);
    else
      spdlog::error("node {} is lost", node);
    auto lost = node;
    agents.erase(lost);
    execute(machine.node_lost(lost));
    return;
  }
}

void controller_state::execute(const std::vector<command>& commands) {
  for (const auto& order : commands) {
    if (const auto* start = std::get_if<start_replica>(&order)) {
      if (auto agent = agents.find(start->spec.node); agent != agents.end())
        self->send(agent->second, start_atom::value, encode(start->spec));
    } else if (const auto* stop = std::get_if<stop_replica>(&order)) {
      if (auto agent = agents.find(stop->node); agent != agents.end())
        self->send(agent->second, stop_atom::value, stop->replica);
    } else {
      publish();
    }
  }
}

void controller_state::publish() {
  auto table = encode(machine.table());
  for (const auto& router : routers)
    self->send(router, table_atom::value, table);
}

controller_actor::behavior_type
behave(controller_actor::stateful_pointer<controller_state> self,
       std::shared_ptr<std::unique_ptr<state_store>> store) {
  self->state.store = std::move(*store);
  self->set_down_handler(
      [self](const caf::down_msg& news) { self->state.down(news); });
  return {
      [self](register_atom, const codec::bytes& node,
             const node_agent_actor& agent) { self->state.join(node, agent); },
      [self](report_atom, const codec::bytes& report) {
        self->state.take_report(report);
      },
      [self](watch_atom, const table_sink_actor& router) {
        self->state.add_router(router);
      },
      [self](deploy_atom, const codec::bytes& deployment) {
        return self->state.deploy(deployment);
      },
      [self](status_atom) { return encode(self->state.machine.status()); },
  };
}

} // namespace

controller_actor spawn_controller(caf::actor_system& system,
                                  std::unique_ptr<state_store> store) {
  // CAF copies what it is given; the holder lets the store move into the state.
  auto holder =
      std::make_shared<std::unique_ptr<state_store>>(std::move(store));
  return system.spawn(behave, std::move(holder));
}

} // namespace troupe::controller
