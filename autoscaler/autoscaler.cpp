#include "autoscaler/autoscaler.hpp"

#include "autoscaler/scaler.hpp"

#include <caf/all.hpp>
#include <spdlog/spdlog.h>

namespace troupe::autoscaler {

namespace {

using namespace protocol;

using timed_autoscaler = autoscaler_actor::extend<caf::reacts_to<tick_atom>>;

struct autoscaler_state {
  static inline const char* name = "autoscaler";

  explicit autoscaler_state(timed_autoscaler::pointer owner) : self(owner) {
    // nop
  }

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

  time_point now() const {
    return self->clock().now();
  }

  timed_autoscaler::pointer self;
  head_controller_actor controller;
  scaler machine;
  bool is_ticking = false;
};

timed_autoscaler::behavior_type
behave(timed_autoscaler::stateful_pointer<autoscaler_state> self,
       const head_controller_actor& controller) {
  auto& state = self->state;
  state.controller = controller;
  self->monitor(controller);
  self->set_down_handler(
      [self](const caf::down_msg& down) { self->quit(down.reason); });
  self->send(controller, watch_atom::value, autoscaler_actor{self});
  return {
      [&state](table_atom, const codec::bytes& models) { state.know(models); },
      [&state](load_atom, const codec::bytes& report) {
        state.hear_router(report);
      },
      [&state](report_atom, const codec::bytes& news) {
        state.hear_replica(news);
      },
      [&state](tick_atom) { state.tick(); },
  };
}

} // namespace

autoscaler_actor spawn_autoscaler(caf::actor_system& system,
                                  const head_controller_actor& controller) {
  return autoscaler_actor{system.spawn(behave, controller)};
}

} // namespace troupe::autoscaler
