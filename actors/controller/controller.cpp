#include "actors/controller/controller.hpp"

#include "actors/controller/answered_error.hpp"
#include "actors/controller/router_loads.hpp"
#include "actors/runtime/link.hpp"
#include "actors/runtime/log.hpp"

#include <algorithm>
#include <caf/all.hpp>
#include <map>
#include <set>
#include <utility>

namespace troupe::controller {

using namespace protocol;

namespace {

/// Nodes that join within this time are remembered with one write.
constexpr milliseconds remember_pause{100};

/// After this time a failed write of the remembered nodes is tried again.
constexpr milliseconds remember_retry{1'000};

/// Between two words to the routers on what the others hold.
constexpr milliseconds others_pause{100};

/// The first protocol version whose routers are told of the others.
constexpr std::uint32_t first_with_others = 6;

/// With its timers.
using timed_controller =
    head_controller_actor::extend<caf::reacts_to<tick_atom>,
                                  caf::reacts_to<others_atom>>;

/// What a controller starts with.
struct beginning {
  std::unique_ptr<state_store> store;
  gatekeeper gate;
  std::uint64_t epoch = 0;
  controller_limits limits;
  std::vector<std::string> remembered;
  std::optional<deployment> stored;
  std::vector<scale_target> targets;
};

struct controller_state {
  using welcome_promise = caf::typed_response_promise<codec::bytes>;

  explicit controller_state(timed_controller::pointer self) : self(self) {
    // nop
  }

  /// What changed just before the end is not forgotten.
  ~controller_state() {
    write_down();
  }
  void begin(beginning from);
  caf::result<codec::bytes> join(const codec::bytes& record,
                                 const node_agent_actor& agent);
  void check_name(welcome_promise promise, node_joined node,
                  const node_agent_actor& agent);
  void admit(welcome_promise promise, node_joined node,
             const node_agent_actor& agent);
  static void refuse(welcome_promise promise, const std::string& node,
                     const std::string& why);
  static void tell_refused(welcome_promise promise, const std::string& why);
  caf::result<std::string> revoke(const std::string& node);
  void watch(const std::string& node, std::uint64_t epoch,
             std::uint32_t version, const node_agent_actor& agent);
  void take_report(const codec::bytes& record);
  void take_death(const codec::bytes& record);
  void take_router_load(const codec::bytes& record);
  void pass_on(const codec::bytes& word);
  void tell_others();
  void take_autoscaler(const autoscaler_actor& from);
  void take_order(const codec::bytes& record);
  caf::result<codec::bytes> watch_nodes();
  caf::result<bool> keep_asked(const codec::bytes& record);
  bool close_node(const std::string& node, bool closed);
  void take_fleet(const codec::bytes& record);
  codec::bytes status() const;
  caf::result<std::uint32_t> scale(const std::string& application,
                                   const std::string& model,
                                   std::uint32_t replicas);
  caf::result<std::uint64_t> deploy(const codec::bytes& record);
  caf::result<std::uint64_t> remove(const std::string& application);
  caf::result<std::uint64_t> make_wanted(deployment wanted);
  void keep_times(deployment& wanted);
  void down(const caf::down_msg& news);
  void tick();
  void execute(commands orders);
  void send(send_assignment& order);
  void publish();
  void tell_all(const caf::message& what);
  void write_down();
  void remember();
  void remember_scale();
  void set_timer();
  time_point now() const {
    return self->system().clock().now();
  }

  struct member {
    node_agent_actor agent;
    std::uint64_t epoch = 0;
    std::uint32_t version = protocol_version; ///< that both speak
  };

  timed_controller::pointer self;
  std::unique_ptr<state_store> store;
  gatekeeper gate;
  std::optional<controller_machine> machine;
  std::map<std::string, member> members;          ///< by node
  std::map<caf::actor_addr, std::string> watched; ///< agent -> node
  autoscaler_actor autoscaler;                    ///< null: nothing is scaled
  std::vector<asked_node> asked;                  ///< as the store has them
  fleet_status fleet; ///< as the autoscaler said last
  time_point fleet_at{};
  std::optional<remember_nodes> to_remember;
  std::optional<remember_targets> to_remember_targets;
  time_point remember_at{};
  std::multiset<time_point> timers; ///< ticks on the way
  router_loads routers;
  bool others_due = false; ///< a word on them is on the way
  static inline const char* name = "controller";
};

void controller_state::begin(beginning from) {
  store = std::move(from.store);
  gate = std::move(from.gate);
  machine.emplace(from.epoch, from.limits, from.remembered, now(),
                  gate.revoked);
  if (from.stored) {
    spdlog::info("head epoch {}: {} models restored, {} nodes to wait for",
                 from.epoch, from.stored->models.size(),
                 from.remembered.size());
    execute(machine->restore(std::move(*from.stored), now(), from.targets));
  }
}

caf::result<codec::bytes>
controller_state::join(const codec::bytes& record,
                       const node_agent_actor& agent) {
  auto promise = self->make_response_promise<codec::bytes>();
  auto node = decode_node_joined(record);
  if (!node)
    refuse(promise, "of some name", node.error().message);
  else if (!agent)
    refuse(promise, node->node, "it came without its agent");
  else if (agent.node() == self->node())
    admit(promise, std::move(*node), agent);
  else
    check_name(promise, std::move(*node), agent);
  return promise;
}

void controller_state::refuse(welcome_promise promise, const std::string& node,
                              const std::string& why) {
  spdlog::warn("node {} was refused: {}", node, why);
  tell_refused(std::move(promise), why);
}

void controller_state::tell_refused(welcome_promise promise,
                                    const std::string& why) {
  node_welcome refused;
  refused.reason = why;
  promise.deliver(encode(refused));
}

/// A node is called what its certificate says. Else there would be nothing to
/// revoke by the name that everybody sees.
void controller_state::check_name(welcome_promise promise, node_joined node,
                                  const node_agent_actor& agent) {
  auto was_here = watched.contains(agent.address());
  auto checked = [this, promise, agent, was_here,
                  node = std::move(node)](const result<std::string>& name) {
    if (was_here && !watched.contains(agent.address()))
      tell_refused(promise, "it has left meanwhile"); // which was logged
    else if (!name)
      refuse(promise, node.node, name.error().message);
    else if (*name != node.node)
      refuse(promise, node.node,
             "its certificate is that of " + *name +
                 "; with a token it can get one for another name");
    else
      admit(promise, node, agent);
  };
  runtime::find_name(self, agent, std::move(checked));
}

void controller_state::admit(welcome_promise promise, node_joined node,
                             const node_agent_actor& agent) {
  auto name = node.node;
  auto version = std::min(node.version, protocol_version);
  spdlog::debug("node {} registers: {} CPUs, {} MiB, {} GPUs, {} replicas",
                name, node.cpus, node.memory_bytes >> 20, node.gpus,
                node.replicas.size());
  commands orders;
  auto welcome = machine->join(std::move(node), orders, now());
  // The agent must know its epoch before anything that bears it.
  promise.deliver(encode(welcome, version));
  if (welcome.accepted) {
    auto known = members.find(name);
    auto is_here = known != members.end() &&
                   known->second.agent.address() == agent.address();
    spdlog::log(is_here ? spdlog::level::debug : spdlog::level::info,
                "node {} joined{} (epoch {:x})", name, is_here ? " again" : "",
                welcome.node_epoch);
    watch(name, welcome.node_epoch, version, agent);
  } else {
    spdlog::warn("node {} was refused: {}", name, welcome.reason);
  }
  execute(std::move(orders));
}

/// What is revoked is so before it is answered. The connection breaks by
/// itself: it is not read any more.
caf::result<std::string> controller_state::revoke(const std::string& node) {
  if (!gate.revoke)
    return to_answer({errc::unsupported, "this head has no authority"});
  std::string state{machine->state_of(node)};
  auto all = gate.revoke(node);
  if (!all)
    return to_answer(all.error());
  spdlog::warn("node {} ({}) was revoked", node, state);
  if (auto member = members.find(node); member != members.end()) {
    if (watched.erase(member->second.agent.address()) != 0)
      self->demonitor(member->second.agent.address());
    members.erase(member);
    routers.forget(node);
  }
  execute(machine->revoke(node, std::move(*all), now()));
  return state;
}

/// An agent is watched once, however often it joins: a second notice of its end
/// would be taken for that of its next life.
void controller_state::watch(const std::string& node, std::uint64_t epoch,
                             std::uint32_t version,
                             const node_agent_actor& agent) {
  auto& member = members[node];
  if (member.agent && member.agent.address() != agent.address() &&
      watched.erase(member.agent.address()) != 0)
    self->demonitor(member.agent.address());
  if (watched.insert_or_assign(agent.address(), node).second)
    runtime::watch(self, agent);
  member = {agent, epoch, version};
}

void controller_state::take_report(const codec::bytes& record) {
  if (auto news = decode_replica_news(record))
    execute(machine->report(*news, now()));
  else
    spdlog::error("a replica's report was refused: {}", news.error().message);
}

void controller_state::take_death(const codec::bytes& record) {
  if (auto notice = decode_death_notice(record))
    execute(machine->death(*notice, now()));
  else
    spdlog::error("a death notice was refused: {}", notice.error().message);
}

/// Of a router whose node is here, as its agent joined last.
void controller_state::take_router_load(const codec::bytes& record) {
  auto report = decode_router_report(record);
  if (!report) {
    spdlog::error("a router's report was refused: {}", report.error().message);
    return;
  }
  auto from = members.find(report->node);
  if (from == members.end() || from->second.epoch != report->node_epoch)
    return;
  if (autoscaler)
    self->send(autoscaler, load_atom::value, record);
  routers.hear(*report);
  if (std::exchange(others_due, true))
    return;
  self->delayed_send(self, others_pause, others_atom::value);
}

/// What a rank says to those of its replica on other nodes.
void controller_state::pass_on(const codec::bytes& record) {
  auto word = decode_rank_word(record);
  if (!word) {
    spdlog::error("a rank's word was refused: {}", word.error().message);
    return;
  }
  for (const auto& node : machine->hearers(*word))
    if (auto to = members.find(node); to != members.end())
      self->send(caf::actor_cast<meeting_agent_actor>(to->second.agent),
                 meet_atom::value, record);
}

void controller_state::tell_others() {
  others_due = false;
  for (const auto& change : routers.due(now())) {
    auto to = members.find(change.node);
    if (to != members.end() && to->second.version >= first_with_others)
      self->send(to->second.agent, others_atom::value,
                 encode(change.others, to->second.version));
  }
}

void controller_state::take_autoscaler(const autoscaler_actor& from) {
  autoscaler = from;
  self->send(autoscaler, table_atom::value, encode(machine->scaled()));
}

void controller_state::take_order(const codec::bytes& record) {
  if (auto order = decode_scale_order(record))
    execute(machine->scale(*order, now()));
  else
    spdlog::error("an order to scale was refused: {}", order.error().message);
}

caf::result<codec::bytes> controller_state::watch_nodes() {
  auto stored = store->asked_nodes();
  if (!stored)
    return to_answer(stored.error());
  asked = std::move(*stored);
  execute(machine->watch_nodes(now()));
  return encode(asked_nodes{machine->epoch(), asked});
}

/// Stored before the provider is asked. Those that are in the list no more have
/// ended.
caf::result<bool> controller_state::keep_asked(const codec::bytes& record) {
  auto list = decode_asked_nodes(record);
  if (!list)
    return to_answer(list.error());
  if (auto done = store->remember_asked(list->nodes); !done)
    return to_answer(done.error());
  std::vector<std::string> ended;
  for (const auto& before : asked)
    if (std::none_of(list->nodes.begin(), list->nodes.end(),
                     [&](const auto& one) { return one.node == before.node; }))
      ended.push_back(before.node);
  asked = std::move(list->nodes);
  execute(machine->bury(ended, now()));
  return true;
}

bool controller_state::close_node(const std::string& node, bool closed) {
  commands orders;
  auto done = machine->close_node(node, closed, orders, now());
  execute(std::move(orders));
  return done;
}

void controller_state::take_fleet(const codec::bytes& record) {
  if (auto news = decode_fleet_status(record))
    fleet = std::move(*news);
  fleet_at = now();
}

codec::bytes controller_state::status() const {
  auto out = machine->status();
  out.demands = machine->demands(now());
  out.fleet = fleet;
  auto passed = static_cast<std::uint64_t>(
      std::chrono::duration_cast<milliseconds>(now() - fleet_at).count());
  for (auto& node : out.fleet.nodes)
    node.since_ms += passed;
  for (auto& type : out.fleet.types)
    type.rests_ms -= std::min(type.rests_ms, passed);
  return encode(out);
}

caf::result<std::uint32_t>
controller_state::scale(const std::string& application,
                        const std::string& model, std::uint32_t replicas) {
  commands orders;
  auto done =
      machine->scale_from_outside(application, model, replicas, orders, now());
  if (!done)
    return to_answer(done.error());
  spdlog::info("{}/{} is to have {} replicas: asked for from outside",
               application, model, replicas);
  execute(std::move(orders));
  return replicas;
}

caf::result<std::uint64_t>
controller_state::deploy(const codec::bytes& record) {
  auto wanted = decode_deployment(record);
  if (!wanted)
    return to_answer(wanted.error());
  return make_wanted(std::move(*wanted));
}

caf::result<std::uint64_t>
controller_state::remove(const std::string& application) {
  if (application.empty()) {
    auto nothing = machine->wanted();
    nothing.models.clear();
    nothing.applications.clear();
    return make_wanted(std::move(nothing));
  }
  auto rest = without(machine->wanted(), application);
  if (rest == machine->wanted())
    return to_answer(
        {errc::not_found, "there is no application \"" + application + "\""});
  return make_wanted(std::move(rest));
}

/// Stored first: what was answered is never forgotten.
caf::result<std::uint64_t> controller_state::make_wanted(deployment wanted) {
  keep_times(wanted);
  note_direction(machine->wanted(), wanted);
  auto version = store->save(encode(wanted));
  if (!version)
    return to_answer(version.error());
  spdlog::info("deployment {}: {} models", *version, wanted.models.size());
  execute(machine->deploy(std::move(wanted), now()));
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
  std::map<std::pair<std::string, std::string>, std::uint64_t> created;
  for (const auto& old : before->models)
    created.emplace(std::pair{old.spec.application, old.spec.model},
                    old.created);
  for (auto& model : wanted.models)
    if (auto old = created.find({model.spec.application, model.spec.model});
        old != created.end())
      model.created = old->second;
}

void controller_state::down(const caf::down_msg& news) {
  auto of = watched.find(news.source);
  if (of == watched.end())
    return;
  auto node = of->second;
  watched.erase(of);
  auto member = members.find(node);
  if (member == members.end() || member->second.agent.address() != news.source)
    return;
  auto has_stopped = news.reason == caf::exit_reason::user_shutdown;
  if (has_stopped)
    spdlog::info("node {} has stopped", node);
  else
    spdlog::error("node {} is lost", node);
  auto epoch = member->second.epoch;
  members.erase(member);
  routers.forget(node);
  execute(machine->node_lost(node, epoch, now(), has_stopped));
}

void controller_state::tick() {
  timers.erase(timers.begin(), timers.upper_bound(now()));
  if (remember_at <= now())
    write_down();
  execute(machine->tick(now()));
}

void controller_state::execute(commands orders) {
  for (auto& order : orders) {
    if (auto* assignment = std::get_if<send_assignment>(&order)) {
      send(*assignment);
    } else if (const auto* death = std::get_if<forward_death>(&order)) {
      tell_all(caf::make_message(death_atom::value, encode(death->notice)));
    } else if (auto* nodes = std::get_if<remember_nodes>(&order)) {
      if (!to_remember && !to_remember_targets)
        remember_at = now() + remember_pause;
      to_remember = std::move(*nodes);
    } else if (auto* targets = std::get_if<remember_targets>(&order)) {
      if (!to_remember && !to_remember_targets)
        remember_at = now() + remember_pause;
      to_remember_targets = std::move(*targets);
    } else if (std::holds_alternative<tell_scaled>(order)) {
      if (autoscaler)
        self->send(autoscaler, table_atom::value, encode(machine->scaled()));
    } else if (std::holds_alternative<tell_nodes>(order)) {
      if (autoscaler)
        self->send(autoscaler, nodes_atom::value,
                   encode(machine->nodes(now())));
    } else if (const auto* load = std::get_if<tell_load>(&order)) {
      if (autoscaler)
        self->send(autoscaler, report_atom::value, encode(load->news));
    } else {
      publish();
    }
  }
  set_timer();
}

void controller_state::send(send_assignment& order) {
  auto member = members.find(order.node);
  if (member != members.end() &&
      member->second.epoch == order.assignment.node_epoch)
    self->send(member->second.agent, assign_atom::value,
               encode(order.assignment, order.version));
}

void controller_state::publish() {
  if (members.empty())
    return;
  auto table = machine->table();
  std::map<std::uint32_t, caf::message> by_version;
  for (const auto& [node, member] : members) {
    auto& message = by_version[member.version];
    if (message.empty())
      message =
          caf::make_message(table_atom::value, encode(table, member.version));
    caf::anon_send(caf::actor_cast<caf::actor>(member.agent), message);
  }
}

/// All agents share one message.
void controller_state::tell_all(const caf::message& what) {
  for (const auto& [node, member] : members)
    caf::anon_send(caf::actor_cast<caf::actor>(member.agent), what);
}

/// Which nodes there are, and what scaled models are to have.
void controller_state::write_down() {
  if (to_remember)
    remember();
  if (to_remember_targets)
    remember_scale();
}

void controller_state::remember() {
  auto done = store->remember_nodes(to_remember->nodes);
  if (done) {
    to_remember.reset();
    return;
  }
  spdlog::error("{}", done.error().message);
  remember_at = now() + remember_retry;
}

void controller_state::remember_scale() {
  auto done = store->remember_targets(to_remember_targets->targets);
  if (done) {
    to_remember_targets.reset();
    return;
  }
  spdlog::error("{}", done.error().message);
  remember_at = now() + remember_retry;
}

/// One tick is on the way for the next thing that is due, no more than needed.
void controller_state::set_timer() {
  auto due = machine->next_deadline();
  if (to_remember || to_remember_targets)
    due = due ? std::min(*due, remember_at) : remember_at;
  if (!due || (!timers.empty() && *timers.begin() <= *due))
    return;
  timers.insert(*due);
  self->delayed_send(self, std::max<time_point::duration>(*due - now(), {}),
                     tick_atom::value);
}

timed_controller::behavior_type
behave(timed_controller::stateful_pointer<controller_state> self,
       std::shared_ptr<beginning> from) {
  self->set_down_handler(
      [self](const caf::down_msg& news) { self->state.down(news); });
  self->state.begin(std::move(*from));
  return {
      [self](register_atom, const codec::bytes& node,
             const node_agent_actor& agent) {
        return self->state.join(node, agent);
      },
      [self](report_atom, const codec::bytes& news) {
        self->state.take_report(news);
      },
      [self](death_atom, const codec::bytes& notice) {
        self->state.take_death(notice);
      },
      [self](load_atom, const codec::bytes& report) {
        self->state.take_router_load(report);
      },
      [self](meet_atom, const codec::bytes& word) {
        self->state.pass_on(word);
      },
      [self](watch_atom, const autoscaler_actor& from) {
        self->state.take_autoscaler(from);
      },
      [self](scale_atom, const codec::bytes& order) {
        self->state.take_order(order);
      },
      [self](nodes_atom) { return self->state.watch_nodes(); },
      [self](nodes_atom, const codec::bytes& list) {
        return self->state.keep_asked(list);
      },
      [self](drain_atom, const std::string& node, bool closed) {
        return self->state.close_node(node, closed);
      },
      [self](status_atom, const codec::bytes& fleet) {
        self->state.take_fleet(fleet);
      },
      [self](scale_atom, const std::string& application,
             const std::string& model, std::uint32_t replicas) {
        return self->state.scale(application, model, replicas);
      },
      [self](deploy_atom, const codec::bytes& deployment) {
        return self->state.deploy(deployment);
      },
      [self](delete_atom, const std::string& application) {
        return self->state.remove(application);
      },
      [self](revoke_atom, const std::string& node) {
        return self->state.revoke(node);
      },
      [self](config_atom) { return encode(self->state.machine->wanted()); },
      [self](status_atom) { return self->state.status(); },
      [self](tick_atom) { self->state.tick(); },
      [self](others_atom) { self->state.tell_others(); },
  };
}

result<void> read_store(beginning& into) {
  auto remembered = into.store->remembered_nodes();
  if (!remembered)
    return remembered.error();
  auto newest = into.store->latest();
  if (!newest)
    return newest.error();
  into.remembered = std::move(*remembered);
  auto targets = into.store->remembered_targets();
  if (!targets)
    return targets.error();
  into.targets = std::move(*targets);
  into.stored.emplace();
  if (!*newest)
    return {};
  auto stored = decode_deployment((*newest)->record);
  if (!stored)
    return error{stored.error().code,
                 "the stored deployment cannot be restored: " +
                     stored.error().message};
  into.stored = std::move(*stored);
  return {};
}

} // namespace

result<head_controller_actor>
spawn_controller(caf::actor_system& system, std::unique_ptr<state_store> store,
                 bool restore, gatekeeper gate, controller_limits limits) {
  // CAF copies what it is given; the holder lets the store move into the state.
  auto from = std::make_shared<beginning>();
  from->store = std::move(store);
  from->gate = std::move(gate);
  from->limits = limits;
  if (restore)
    if (auto done = read_store(*from); !done)
      return done.error();
  auto epoch = from->store->next_epoch();
  if (!epoch)
    return epoch.error();
  from->epoch = *epoch;
  return head_controller_actor{system.spawn(behave, std::move(from))};
}

} // namespace troupe::controller
