#pragma once

#include <caf/actor_cast.hpp>
#include <caf/actor_system.hpp>
#include <caf/duration.hpp>
#include <caf/exit_reason.hpp>
#include <caf/scoped_actor.hpp>
#include <caf/system_messages.hpp>

#include <chrono>

namespace troupe::runtime {

/// Ends an actor of this process ahead of what waits in its mailbox, by
/// `exit_reason::user_shutdown`, from which who watches it knows that this was
/// to be; returns whether it was gone within `timeout`. An actor system must
/// not be destroyed before every actor that was published or sent to another
/// process is gone: CAF ends such ones after what they need is destroyed.
template <class Handle>
bool stop_actor(caf::actor_system& system, const Handle& actor,
                std::chrono::milliseconds timeout) {
  caf::scoped_actor self{system, true};
  self->monitor(actor);
  self->send<caf::message_priority::high>(
      caf::actor_cast<caf::actor>(actor),
      caf::exit_msg{self->address(), caf::exit_reason::user_shutdown});
  bool gone = false;
  self->receive([&](const caf::down_msg&) { gone = true; },
                caf::after(caf::duration{timeout}) >> [] {});
  return gone;
}

} // namespace troupe::runtime
