#pragma once

#include "actors/controller/controller_machine.hpp"
#include "actors/controller/router_loads.hpp"
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

/// What the controller tells the autoscaler, in one process.
class autoscaler_sink {
public:
  virtual ~autoscaler_sink() = default;
  virtual void know(const codec::bytes& models) = 0;
  virtual void hear_router(const codec::bytes& report) = 0;
  virtual void hear_replica(const codec::bytes& news) = 0;
  virtual void know_nodes(const codec::bytes& view) = 0;
};

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

  // From the autoscaler.
  void watch(autoscaler_sink*);
  void scale(const codec::bytes& order);
  /// The answer: asked_nodes, as the store has them.
  void watch_nodes(std::function<void(codec::bytes)>);
  /// The answer: whether they are stored.
  void keep_asked(const codec::bytes& list, std::function<void(bool)>);
  /// The answer: whether it is done.
  void close_node(const std::string& node, bool closed,
                  std::function<void(bool)>);

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
  void take_router_load(const codec::bytes&);
  void tell_others();
  void tell_autoscaler(void (autoscaler_sink::*)(const codec::bytes&),
                       codec::bytes);
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
  controller::router_loads routers_;
  bool others_due_ = false;
  autoscaler_sink* autoscaler_ = nullptr;
  std::vector<protocol::asked_node> asked_; ///< as the store has them
  std::optional<controller::remember_nodes> to_remember_;
  std::optional<controller::remember_targets> to_remember_targets_;
  local_time remember_at_{};
  std::multiset<local_time> timers_; ///< ticks on the way
};

} // namespace troupe::sim
