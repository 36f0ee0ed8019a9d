#pragma once

#include <caf/actor_cast.hpp>
#include <caf/actor_control_block.hpp>

#include <cstdint>
#include <map>
#include <mutex>

namespace troupe::runtime {

/// The processes that connect to this one by themselves, by incarnation. Two
/// processes have one connection, never two: CAF 0.17 mixes up the routes when
/// each connects to the other. So whoever wants to talk to a process that is in
/// here uses the connection that it made. Any thread.
class peer_directory {
public:
  /// The process will connect to this one.
  void expect(std::uint64_t incarnation) {
    std::lock_guard guard{mutex_};
    peers_.try_emplace(incarnation);
  }

  /// It has: this is its actor. Ignored unless it was expected.
  void met(std::uint64_t incarnation, const caf::strong_actor_ptr& actor) {
    std::lock_guard guard{mutex_};
    auto i = peers_.find(incarnation);
    if (i != peers_.end())
      i->second = caf::actor_cast<caf::weak_actor_ptr>(actor);
  }

  /// Its connection is gone; it will make another one.
  void lost(std::uint64_t incarnation) {
    met(incarnation, caf::strong_actor_ptr{});
  }

  /// Its life is over.
  void forget(std::uint64_t incarnation) {
    std::lock_guard guard{mutex_};
    peers_.erase(incarnation);
  }

  bool expects(std::uint64_t incarnation) const {
    std::lock_guard guard{mutex_};
    return peers_.contains(incarnation);
  }

  /// Its actor; null while it is not connected.
  caf::strong_actor_ptr find(std::uint64_t incarnation) const {
    std::lock_guard guard{mutex_};
    auto i = peers_.find(incarnation);
    return i == peers_.end()
               ? nullptr
               : caf::actor_cast<caf::strong_actor_ptr>(i->second);
  }

private:
  mutable std::mutex mutex_;
  std::map<std::uint64_t, caf::weak_actor_ptr> peers_;
};

} // namespace troupe::runtime
