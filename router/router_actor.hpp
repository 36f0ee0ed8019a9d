#pragma once

#include "actors/protocol/actors.hpp"
#include "router/dispatcher.hpp"
#include "router/histogram.hpp"
#include "router/replica_gauges.hpp"
#include "router/request_table.hpp"
#include "router/tenants.hpp"
#include "router/wake_queue.hpp"

#include <caf/typed_event_based_actor.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>

namespace troupe::router {

/// The router as its own process sees it: other processes need only
/// protocol::router_actor.
using local_router_actor = protocol::router_actor::extend<
    // Look into the dispatcher's inbox and at the clock.
    caf::reacts_to<protocol::tick_atom>,
    // Time to say what it holds.
    caf::reacts_to<protocol::load_atom>>;

/// Opens a connection to the replica at an endpoint of its own and calls back,
/// in the actor's context, at the latest after the time-out.
using connect_replica = std::function<void(
    local_router_actor::pointer self, const protocol::endpoint&,
    std::chrono::milliseconds timeout,
    std::function<void(result<protocol::replica_actor>)>)>;

/// The one that a cluster uses: mutual TLS (actors/runtime/link.hpp).
connect_replica connect_over_tls();

struct router_arguments {
  std::uint64_t incarnation = 0; ///< random per life of the router
  table_limits limits;
  std::chrono::milliseconds attach_time{5'000}; ///< connect and open a session
  std::uint64_t random_seed = 0;
  std::shared_ptr<dispatcher> inbox;
  std::shared_ptr<wake_queue> sleepers; ///< who waits for models that sleep
  std::shared_ptr<tenants> accounts;    ///< null: nobody has limits
  /// Gets each newer routing table; must be quick.
  std::function<void(std::shared_ptr<const protocol::routing_table>)> on_table;
  connect_replica connect = connect_over_tls();
};

/// Numbers of a router for /metrics. Any thread.
struct router_gauges {
  std::atomic<std::uint64_t> choices_waiting = 0;
  std::atomic<std::uint64_t> choices_sent = 0;
  // Since the router began; see table_counts.
  std::atomic<std::uint64_t> streams_moved = 0;
  std::atomic<std::uint64_t> streams_class_changed = 0;
  std::atomic<std::uint64_t> streams_suspected = 0;
  std::atomic<std::uint64_t> poison_requests = 0;
  std::atomic<std::uint64_t> poison_requests_refused = 0;
  std::atomic<std::uint64_t> requests_late = 0;
  std::atomic<std::uint64_t> requests_expired = 0;
  std::atomic<std::uint64_t> retries_put_off = 0;
  replica_gauges replicas;
  histogram move_wait; ///< of moved streams: from the loss to the next sending
};

/// The shell around a request_table: carries its commands out and hands it what
/// arrives. Knows sessions (by incarnation) and sinks (by request), no rules.
class router_state {
public:
  static inline const char* name = "router";

  explicit router_state(local_router_actor::pointer self);
  router_state(const router_state&) = delete;
  router_state& operator=(const router_state&) = delete;

  /// Tells whoever still waits that the router is gone.
  ~router_state();

  void start(router_arguments, std::shared_ptr<router_gauges>);
  void take_tokens(const codec::bytes& batch);
  void take_table(const codec::bytes& table);
  void take_death(const codec::bytes& notice);
  void take_inbox();
  void take_others(const codec::bytes& others);
  void take_watcher(protocol::load_sink_actor);
  void tell_load();
  void peer_down(const caf::actor_addr& source);

private:
  struct session {
    protocol::replica_actor peer; ///< empty while connecting
    std::uint64_t number = 0;     ///< answers to older ones are dropped
    std::uint32_t version = protocol::protocol_version; ///< that the peer reads
  };

  time_point now() const;
  bool current(std::uint64_t incarnation, std::uint64_t number) const;
  void connected(const protocol::endpoint&, std::uint64_t number,
                 result<protocol::replica_actor>);
  void attached(const protocol::endpoint&, std::uint64_t incarnation,
                std::uint32_t version);
  void attach_failed(std::uint64_t incarnation);
  void close_session(std::uint64_t incarnation);
  void take(dispatcher::event&);
  void run(command_list);
  void show_counts();
  void arm();

  void carry_out(command::attach&);
  void carry_out(command::detach&);
  void carry_out(command::generate&);
  void carry_out(command::cancel&);
  void carry_out(command::deliver&);
  void carry_out(command::fail&);
  void carry_out(command::moved&);
  void carry_out(command::suspected&);
  void carry_out(command::follow_blocks&);
  void carry_out(command::measured_hits&);
  void carry_out(command::convicted&);
  void carry_out(command::release&);

  local_router_actor::pointer self_;
  router_arguments args_;
  std::shared_ptr<router_gauges> gauges_;
  std::unique_ptr<request_table> table_;
  std::map<std::uint64_t, session> sessions_; // by incarnation
  std::map<std::uint64_t, std::shared_ptr<reply_sink>> sinks_;
  std::uint64_t last_session_ = 0;
  std::uint64_t table_version_ = 0;
  std::optional<time_point> armed_;
  protocol::load_sink_actor watcher_; ///< null: nobody asks for its load
  protocol::router_report told_;      ///< last
  std::optional<time_point> told_at_;
};

local_router_actor::behavior_type
router_actor(local_router_actor::stateful_pointer<router_state> self,
             router_arguments, std::shared_ptr<router_gauges>);

} // namespace troupe::router
