#pragma once

#include "actors/controller/controller_machine.hpp"
#include "tests/sim/network.hpp"
#include "tests/sim/process.hpp"
#include "tests/sim/store.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

namespace troupe::sim {

/// The simulated counterpart of controller.cpp around a controller_machine and
/// a store. While the store writes, the actor stands still: what it hears
/// waits, and what it says leaves when the write has ended.
class controller_shell {
public:
  static constexpr link_id own_process = 0;

  /// `to_own_agent`: of this process.
  controller_shell(process& self, surroundings, disk&,
                   std::function<void(message)> to_own_agent);

  // Messages of node agents.
  void on_message(link_id, message);
  void on_down(link_id);

  // From the operator, over the admin listener. The answer is the version.
  using on_version = std::function<void(result<std::uint64_t>)>;
  void deploy(codec::bytes deployment, on_version);
  void remove(std::string application, on_version);

  // For the checks.
  const controller::controller_machine& machine() const {
    return *machine_;
  }

private:
  struct node {
    link_id link = 0;
    std::uint64_t epoch = 0;
    std::vector<std::string> assigned; ///< replicas, by the newest assignment
  };

  void start();
  void hear(world::action);
  void say(world::action);
  void join(link_id, const message&);
  void take_news(const protocol::replica_news&);
  void store_and_deploy(controller::deployment, const on_version&);
  void execute(const controller::commands&);
  void check_assigned();
  void send(link_id, message);
  void send_to_all(const message&);
  void tick();
  void remember();
  void set_timer();

  process& self_;
  surroundings around_;
  disk& disk_;
  std::function<void(message)> to_own_agent_;
  simulated_store store_;
  std::unique_ptr<controller::controller_machine> machine_;
  std::map<std::string, node> nodes_;
  std::optional<controller::remember_nodes> to_remember_;
  std::optional<controller::remember_targets> to_remember_targets_;
  local_time remember_at_{};
  std::multiset<local_time> timers_; ///< ticks on the way
};

} // namespace troupe::sim
