#pragma once

#include "actors/protocol/actors.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scheduler/test_coordinator.hpp>
#include <caf/scoped_actor.hpp>

namespace troupe::test {

/// An actor system in which nothing runs on its own and time stands still.
/// Actors under test run in this one thread, in order; no network.
class deterministic {
  struct config : caf::actor_system_config {
    config() {
      add_message_types<caf::id_block::troupe>();
      set("scheduler.policy", caf::atom("testing"));
      set("logger.console", caf::atom("none"));
    }
  };

  config config_;

public:
  caf::actor_system system{config_};
  caf::scoped_actor self{system, true};

  /// Runs actors until none has a message left. Timers do not fire.
  void settle() {
    while (scheduler_.has_job())
      scheduler_.run_once();
  }

  /// Moves the clock, fires what is due, then settles.
  void advance(caf::timespan duration) {
    settle();
    scheduler_.advance_time(duration);
    settle();
  }

private:
  caf::scheduler::test_coordinator& scheduler_ =
      dynamic_cast<caf::scheduler::test_coordinator&>(system.scheduler());
};

} // namespace troupe::test
