#pragma once

#include "actors/controller/scaling.hpp"
#include "actors/protocol/load_messages.hpp"
#include "autoscaler/latency_window.hpp"
#include "autoscaler/load_windows.hpp"
#include "autoscaler/policy/scaling_step.hpp"
#include "autoscaler/policy/tokens.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace troupe::autoscaler {

/// How many replicas each scaled model is to have: a pure state machine. Load
/// and the models come in, orders go out; no clock, no actors.
///
/// Load that is late or doubled is dropped, and what is of a model, a node or a
/// replica that is not there any more does not count.
class scaler {
public:
  /// All that is to be scaled. A model with another revision begins anew.
  void know(const controller::scaled_models&);

  void hear(const protocol::router_report&, time_point now);
  void hear(const protocol::replica_load_news&, time_point now);

  /// Decides for every model; to be called every `scaling_tick`. Gives what
  /// changed: at once a target, no more than once a second a mere reason.
  std::vector<protocol::scale_order>
  tick(time_point now, std::chrono::system_clock::time_point wall_clock);

  bool idle() const {
    return models_.empty();
  }

private:
  using model_key = std::pair<std::string, std::string>; // application, model

  struct model {
    controller::scaled_model wanted;
    scaling_options options;
    load_windows windows;
    scaling_state state;
    std::map<std::string, protocol::replica_load_news> replicas; ///< newest
    latency_window first_tokens;
    latency_window next_tokens;
    std::map<std::string, std::uint32_t> oldest_ms; ///< by router
    protocol::scale_order ordered;
    time_point ordered_at{};
  };

  /// A router's life, as it was heard last.
  struct router {
    std::uint64_t incarnation = 0;
    std::uint64_t sequence = 0;
  };

  static model begin(const controller::scaled_model&);
  static scaling_options options_now(const model&,
                                     std::chrono::system_clock::time_point);
  static void keep_serving(model&, const controller::scaled_model&);
  static void measure_anew(model&, time_point now);
  static token_work work_of(const model&, const load&);
  static scaling_decision decide(const model&, const load&,
                                 const scaling_options&, time_point now);

  std::map<model_key, model> models_;
  std::set<std::string> nodes_;           ///< that are alive
  std::map<std::string, router> routers_; ///< by node, of those
};

} // namespace troupe::autoscaler
