#include "autoscaler/autoscaler.hpp"

#include "actors/runtime/log.hpp"
#include "autoscaler/scaler.hpp"

#include <caf/all.hpp>

#include <optional>
#include <set>

namespace troupe::autoscaler {

namespace {

using namespace protocol;

constexpr std::chrono::seconds answer_max{10};
/// Before a question that was not answered is asked again.
constexpr std::chrono::seconds question_pause{1};

/// With its timers: one for replicas, one for nodes.
using timed_autoscaler = autoscaler_actor::extend<caf::reacts_to<tick_atom>,
                                                  caf::reacts_to<nodes_atom>>;

struct autoscaler_state {
  static inline const char* name = "autoscaler";

  explicit autoscaler_state(timed_autoscaler::pointer owner) : self(owner) {
    // nop
  }

  // -- replicas

  void know(const codec::bytes& record) {
    auto models = controller::decode_scaled_models(record);
    if (!models) {
      spdlog::error("autoscaler: {}", models.error().message);
      return;
    }
    machine.know(*models);
    if (!machine.idle() && !is_ticking)
      set_timer();
  }

  void hear_router(const codec::bytes& record) {
    if (auto report = decode_router_report(record))
      machine.hear(*report, now());
  }

  void hear_replica(const codec::bytes& record) {
    if (auto news = decode_replica_load_news(record))
      machine.hear(*news, now());
  }

  void tick() {
    is_ticking = false;
    for (const auto& order :
         machine.tick(now(), std::chrono::system_clock::now()))
      self->send(controller, scale_atom::value, encode(order));
    if (!machine.idle())
      set_timer();
  }

  void set_timer() {
    is_ticking = true;
    self->delayed_send(self, scaling_tick, tick_atom::value);
  }

  // -- nodes

  void begin_nodes();
  void met(const codec::bytes& record);
  void know_nodes(const codec::bytes& record);
  void node_ended(const std::string& node, const std::string& why);
  void look_at_nodes();
  void execute(fleet::commands);
  void carry_out(const fleet::store_nodes&);
  void carry_out(const fleet::ask_for&);
  void carry_out(const fleet::close_node&);
  void carry_out(const fleet::end_node&);
  void set_nodes_timer();

  time_point now() const {
    return self->clock().now();
  }

  timed_autoscaler::pointer self;
  head_controller_actor controller;
  scaler machine;
  bool is_ticking = false;

  node_bringing bringing;
  std::uint64_t epoch = 0;
  std::optional<fleet::machine> nodes; ///< once the store's word is here
  codec::bytes early_view;             ///< that came before
  std::vector<std::pair<std::string, std::string>> early_ends;
  std::multiset<time_point> timers; ///< looks at nodes on the way
};

void autoscaler_state::begin_nodes() {
  if (!bringing.provider)
    return;
  self->request(controller, answer_max, nodes_atom::value)
      .then([this](const codec::bytes& record) { met(record); },
            [this](const caf::error& why) {
              spdlog::error("the nodes that were asked for are not known: {}",
                            self->system().render(why));
              self->delayed_send(self, question_pause, nodes_atom::value);
            });
}

void autoscaler_state::met(const codec::bytes& record) {
  auto stored = decode_asked_nodes(record);
  if (!stored || nodes)
    return;
  epoch = stored->head_epoch;
  nodes.emplace(bringing.options, epoch);
  if (!stored->nodes.empty() || !bringing.living.empty())
    spdlog::info("nodes of before: {} stored, {} alive", stored->nodes.size(),
                 bringing.living.size());
  execute(nodes->begin(stored->nodes, bringing.living, now()));
  for (const auto& [node, why] : std::exchange(early_ends, {}))
    node_ended(node, why);
  if (!early_view.empty())
    know_nodes(std::exchange(early_view, {}));
}

void autoscaler_state::know_nodes(const codec::bytes& record) {
  if (!nodes) {
    early_view = record;
    return;
  }
  if (auto view = decode_nodes_view(record))
    execute(nodes->know(std::move(*view), now()));
  else
    spdlog::error("autoscaler: {}", view.error().message);
}

void autoscaler_state::node_ended(const std::string& node,
                                  const std::string& why) {
  if (!nodes) {
    early_ends.emplace_back(node, why);
    return;
  }
  if (why.empty())
    spdlog::info("the node {} has ended", node);
  else
    spdlog::warn("the node {} is gone: {}", node, why);
  execute(nodes->ended(node, why, now()));
}

void autoscaler_state::look_at_nodes() {
  timers.erase(timers.begin(), timers.upper_bound(now()));
  if (nodes)
    execute(nodes->tick(now()));
  else
    begin_nodes();
}

void autoscaler_state::execute(fleet::commands orders) {
  for (const auto& order : orders)
    std::visit([this](const auto& what) { carry_out(what); }, order);
  self->send(controller, status_atom::value, encode(nodes->status(now())));
  set_nodes_timer();
}

void autoscaler_state::carry_out(const fleet::store_nodes& list) {
  self->request(controller, answer_max, nodes_atom::value,
                encode(asked_nodes{epoch, list.nodes}))
      .then([this](bool done) { execute(nodes->stored(done, now())); },
            [this](const caf::error& why) {
              spdlog::error("which nodes are asked for was not stored: {}",
                            self->system().render(why));
              execute(nodes->stored(false, now()));
            });
}

void autoscaler_state::carry_out(const fleet::ask_for& wish) {
  spdlog::info("a node of type {} is asked for: {}", wish.type, wish.node);
  bringing.provider->ask(wish.node, wish.type);
}

void autoscaler_state::carry_out(const fleet::close_node& order) {
  auto request = self->request(controller, answer_max, drain_atom::value,
                               order.node, order.closed);
  if (!order.closed) {
    request.then([](bool) {}, [](const caf::error&) {});
    return;
  }
  auto answered = [this, node = order.node](bool done) {
    execute(nodes->closed(node, done, now()));
  };
  // It may be closed after all, when nobody waits for that any more.
  request.then(
      answered, [this, answered, node = order.node](const caf::error&) {
        self->request(controller, answer_max, drain_atom::value, node, false)
            .then([](bool) {}, [](const caf::error&) {});
        answered(false);
      });
}

void autoscaler_state::carry_out(const fleet::end_node& order) {
  spdlog::info("the node {} is told to end", order.node);
  bringing.provider->end(order.node);
}

/// One look is on the way for the next thing that is due, no more than needed.
void autoscaler_state::set_nodes_timer() {
  auto due = nodes->next_deadline(now());
  if (!due || (!timers.empty() && *timers.begin() <= *due))
    return;
  timers.insert(*due);
  self->delayed_send(self, std::max<time_point::duration>(*due - now(), {}),
                     nodes_atom::value);
}

timed_autoscaler::behavior_type
behave(timed_autoscaler::stateful_pointer<autoscaler_state> self,
       const head_controller_actor& controller,
       const std::shared_ptr<node_bringing>& bringing) {
  auto& state = self->state;
  state.controller = controller;
  state.bringing = std::move(*bringing);
  self->monitor(controller);
  self->set_down_handler(
      [self](const caf::down_msg& down) { self->quit(down.reason); });
  self->send(controller, watch_atom::value, autoscaler_actor{self});
  if (const auto& provider = state.bringing.provider)
    provider->listen([to = autoscaler_actor{self}](const std::string& node,
                                                   const std::string& why) {
      caf::anon_send(to, ended_atom::value, node, why);
    });
  state.begin_nodes();
  return {
      [&state](table_atom, const codec::bytes& models) { state.know(models); },
      [&state](load_atom, const codec::bytes& report) {
        state.hear_router(report);
      },
      [&state](report_atom, const codec::bytes& news) {
        state.hear_replica(news);
      },
      [&state](nodes_atom, const codec::bytes& view) {
        state.know_nodes(view);
      },
      [&state](ended_atom, const std::string& node, const std::string& why) {
        state.node_ended(node, why);
      },
      [&state](tick_atom) { state.tick(); },
      [&state](nodes_atom) { state.look_at_nodes(); },
  };
}

} // namespace

autoscaler_actor spawn_autoscaler(caf::actor_system& system,
                                  const head_controller_actor& controller,
                                  node_bringing bringing) {
  // CAF copies what it is given.
  auto from = std::make_shared<node_bringing>(std::move(bringing));
  return autoscaler_actor{system.spawn(behave, controller, from)};
}

} // namespace troupe::autoscaler
