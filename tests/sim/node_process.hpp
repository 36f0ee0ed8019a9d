#pragma once

#include "tests/sim/agent_shell.hpp"
#include "tests/sim/autoscaler_shell.hpp"
#include "tests/sim/controller_shell.hpp"
#include "tests/sim/router_shell.hpp"

#include <functional>
#include <memory>
#include <string>

namespace troupe::sim {

/// What a node's process is started with.
struct node_options {
  protocol::node_joined self;             ///< `incarnation` is drawn
  std::uint16_t port = 0;                 ///< of its listener; 0 = any
  std::optional<protocol::endpoint> head; ///< none: it is the head
  disk* store = nullptr;                  ///< the head's
  simulated_provider* provider = nullptr; ///< the head's; null = none
  /// Behaviour of the replica that is about to start; nothing = it cannot be.
  std::function<std::optional<engine_habits>()> habits;
};

/// `troupe start`: a node agent and a router, on the head a controller and an
/// autoscaler too.
class node_process : public process {
public:
  node_process(surroundings, host_id, const host_clock&, ledger&, node_options);
  /// Once it has its place in the table.
  void start();
  /// `troupe stop`: its router finishes what it has, its replicas what they
  /// run, each in half of this time.
  void stop(nanoseconds time);

  void on_message(link_id, message&) override;
  void on_down(link_id) override;
  void on_child_end(process_id, ending) override;

  controller_shell* controller() const {
    return controller_.get();
  }
  autoscaler_shell* autoscaler() const {
    return autoscaler_.get();
  }
  bool stopping() const {
    return stopping_;
  }
  /// False while its host stands still since before its start.
  bool started() const {
    return router_ != nullptr;
  }
  agent_shell& agent() const {
    return *agent_;
  }
  router_shell& router() const {
    return *router_;
  }

private:
  void finish_requests(local_time end, nanoseconds time);
  replica_process* spawn(const codec::bytes& launch);

  ledger& ledger_;
  node_options options_;
  std::unique_ptr<controller_shell> controller_;
  std::unique_ptr<autoscaler_shell> autoscaler_;
  std::unique_ptr<agent_shell> agent_;
  std::unique_ptr<router_shell> router_;
  bool stopping_ = false;
};

} // namespace troupe::sim
