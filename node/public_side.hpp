#pragma once

#include "actors/protocol/actors.hpp"
#include "router/service.hpp"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace troupe::node {

/// Opens and closes the public listener of a router as the head wants it, on a
/// thread of its own since closing takes time, and tells the node's agent where
/// it listens.
class public_side {
public:
  /// `grace`: how long answers under way go on when the listener closes.
  public_side(router::service&, std::chrono::milliseconds grace);
  ~public_side();

  /// Whom to tell; before that nothing is opened.
  void tell(protocol::node_agent_actor);

  /// The head's wish. Any thread, also the agent's; returns at once.
  void want(bool listens);

  /// Waits until the first wish was carried out; true if it was within the
  /// time. An error if the port could not be had.
  result<bool> wait_settled(std::chrono::milliseconds time_max);

  /// Carries no more wishes out.
  void stop();

  /// Where it listens; 0 = it does not.
  std::uint16_t port() const;

private:
  void run();
  void carry_out(bool listens);

  router::service& service_;
  std::chrono::milliseconds grace_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  protocol::node_agent_actor agent_;
  std::optional<bool> wanted_; ///< not yet carried out
  bool settled_ = false;
  bool stopping_ = false;
  std::uint16_t port_ = 0;
  std::string fault_; ///< why the port could not be had
  std::thread thread_;
};

} // namespace troupe::node
