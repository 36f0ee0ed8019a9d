#pragma once

#include "autoscaler/node_plan.hpp"
#include "node/provider/node_provider.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace troupe::autoscaler::fleet {

using time_point = std::chrono::steady_clock::time_point;

struct options {
  std::vector<node_type> types;
  std::uint32_t max_workers = 2;
  double upscaling_speed = 1;
  milliseconds idle_timeout{300'000};
  /// From the asking to the joining; then the node is ended.
  milliseconds arrival_max{60'000};
  /// A node that is lost is given up after this time.
  milliseconds lost_max{10'000};
  /// A node that lived so long has not failed when it ends.
  milliseconds stable_after{60'000};
  /// A type that failed rests so long; doubles with each time in a row.
  milliseconds rest{30'000};
  milliseconds rest_max{600'000};
  milliseconds store_retry{1'000};
};

/// For the store. Answered by `stored`.
struct store_nodes {
  std::vector<protocol::asked_node> nodes;
};
/// For the provider: the store has it.
struct ask_for {
  std::string node;
  std::string type;
};
/// For the controller: it is to place nothing there, or may again. Answered by
/// `closed`.
struct close_node {
  std::string node;
  bool closed = true;
};
/// For the provider. Answered by `ended`.
struct end_node {
  std::string node;
};
using command = std::variant<store_nodes, ask_for, close_node, end_node>;
using commands = std::vector<command>;

/// The nodes that are brought, from the asking to the end: a pure state machine
/// (events and the time in, commands out).
///
///   storing ─▶ requested ─▶ joined ⇄ lost
///                 │          ⇅        │
///                 │       draining    │
///                 ▼          ▼        ▼
///              ending ─▶ (gone)
///
/// - A node is stored before it is asked for, and leaves the store after it is
///   gone; so a head that starts again knows all that may live. What it finds
///   alive it keeps (`begin`), what is stored and not alive it forgets, what
///   is alive and not stored it ends.
/// - A type whose node does not come, ends within `stable_after` or comes with
///   less than it promised rests; meanwhile others that fit are asked for.
/// - An idle node is closed at the controller before it is ended, so that
///   nothing is placed on a node that goes; if a demand needs it meanwhile it
///   is opened again.
/// - Nothing is asked for or drained before the controller has told what there
///   is.
class machine {
public:
  /// `epoch`: of the head; node names have it, so that none is given twice.
  machine(options, std::uint64_t epoch);

  /// `stored`: what the store has. `living`: what the provider has.
  commands begin(const std::vector<protocol::asked_node>& stored,
                 const std::vector<troupe::node::living_node>& living,
                 time_point now);

  commands know(protocol::nodes_view, time_point now);
  commands stored(bool done, time_point now);
  commands closed(const std::string& node, bool done, time_point now);
  /// The provider's word: gone. `why`: empty if it was told to end it.
  commands ended(const std::string& node, const std::string& why,
                 time_point now);
  commands tick(time_point now);

  /// When `tick` has something to do; nothing = not before another event.
  std::optional<time_point> next_deadline(time_point now) const;

  protocol::fleet_status status(time_point now) const;

private:
  enum class phase : std::uint8_t {
    storing,
    requested,
    joined,
    lost,
    draining,
    ending,
  };

  struct node {
    std::string type;
    phase at = phase::storing;
    time_point since;    ///< in this phase
    time_point deadline; ///< while requested or lost
    std::optional<time_point> idle_since;
    std::optional<time_point> stable_at; ///< once it joined
    bool proved = false;       ///< its type can come: it has been stable
    bool wanted_again = false; ///< while draining
    bool listed = false;       ///< in the list on its way to disk
  };

  struct kind {
    node_type type;
    std::uint32_t failures = 0; ///< in a row
    std::optional<time_point> rests_until;
    std::string reason;
  };

  void enter(node&, phase, time_point now);
  void failed(const std::string& type, const std::string& why, time_point now);
  void see(const std::string& name, node&, const protocol::seen_node*,
           time_point now);
  void joined(const std::string& name, node&, const protocol::seen_node&,
              time_point now);
  void end(const std::string& name, node&, commands&, time_point now);
  void expire(commands&, time_point now);
  node_situation situation(time_point now) const;
  void follow_plan(commands&, time_point now);
  void store(commands&, time_point now);
  void finish(commands&, time_point now);

  options options_;
  std::uint64_t epoch_;
  std::uint64_t names_ = 0;
  std::map<std::string, kind> kinds_; ///< by name of the type
  std::map<std::string, node> nodes_;
  std::optional<protocol::nodes_view> view_;
  bool changed_ = false; ///< which nodes there are, since the last list
  bool storing_ = false; ///< a list is on its way
  time_point store_at_{};
};

} // namespace troupe::autoscaler::fleet
