#pragma once

#include "actors/node_agent/agent_machine.hpp"
#include "tests/sim/replica_process.hpp"
#include "tests/sim/router_shell.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <optional>

namespace troupe::sim {

/// The simulated counterpart of node_agent.cpp and the process host around an
/// agent_machine.
class agent_shell : public known_peers {
public:
  struct outside {
    /// The way to the controller: an endpoint, or this process's own.
    std::optional<protocol::endpoint> head;
    std::function<void(message)> to_own_controller;
    std::function<void(const codec::bytes&)> take_table;
    std::function<void(const codec::bytes&)> take_death;
    std::function<void(const codec::bytes&)> take_others;
    /// Starts a replica's process with its launch record.
    std::function<replica_process*(const codec::bytes&)> spawn;
    std::function<void(bool wanted)> want_router;
    std::function<void()> all_stopped;
  };

  agent_shell(process& self, surroundings, protocol::node_joined,
              std::uint16_t port, outside);

  // Messages.
  void from_controller(message&);
  void from_replica(link_id, message&);
  void on_down(link_id);
  void on_child_end(process_id, ending);
  void router_port(std::uint16_t);
  void take_router_load(const codec::bytes& report);

  /// Ends all replicas.
  void drain(nanoseconds time);

  // known_peers
  bool expects(std::uint64_t incarnation) const override {
    return children_.contains(incarnation);
  }
  std::optional<link_id> find(std::uint64_t incarnation) const override;

  // For the checks.
  const node_agent::agent_machine& machine() const {
    return machine_;
  }

private:
  static constexpr link_id own_process = 0;

  struct child {
    process_id id = 0;
    std::optional<link_id> link;
    codec::bytes tuned; ///< the newest change; empty = none
  };

  void tick();
  void obey_assignment(const protocol::node_assignment&);
  void check_early(const node_agent::agent_commands&);
  void reached(std::uint64_t attempt, std::optional<link_id>);
  void run(node_agent::agent_commands);
  void tell_controller(message);
  void to_replica(std::uint64_t incarnation, message);

  void obey(const node_agent::spawn_process&);
  void obey(const node_agent::signal_process&);
  void obey(const node_agent::drain_replica&);
  void obey(const node_agent::tune_replica&);
  void obey(const node_agent::all_stopped&);
  void obey(const node_agent::connect_head&);
  void obey(const node_agent::register_node&);
  void obey(const node_agent::leave_head&);
  void obey(const node_agent::send_news&);
  void obey(const node_agent::send_death&);
  void obey(const node_agent::want_router&);
  void obey(const node_agent::know_revoked&);
  void obey(const node_agent::send_rank_word&);

  process& self_;
  surroundings around_;
  outside outside_;
  protocol::endpoint where_;
  node_agent::agent_machine machine_;
  std::optional<link_id> head_;
  std::uint64_t early_epoch_ = 0; ///< of what was assigned ahead of a welcome
  std::uint64_t attempts_ = 0;    // what is of older ones is late
  std::map<std::uint64_t, child> children_; // by incarnation
};

} // namespace troupe::sim
