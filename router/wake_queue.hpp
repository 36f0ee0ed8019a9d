#pragma once

#include "actors/protocol/load_messages.hpp"
#include "engine/codec/error.hpp"

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace troupe::router {

/// Requests for models that have no replica because nobody used them. That they
/// wait wakes the model (`load` tells the autoscaler of them); they go on when
/// it has a replica. Any thread; nothing is called with a lock held.
class wake_queue {
public:
  using model_key = std::pair<std::string, std::string>; ///< application, model
  using time_point = std::chrono::steady_clock::time_point;

  struct limits {
    std::size_t waiting_max = 1024; ///< of one model
    std::chrono::milliseconds wait_max{300'000};
  };

  /// A request. Once it is neither gone on nor failed itself, one of the two is
  /// called, once.
  struct waiter {
    std::function<bool()> waits; ///< false: its client has left; must be quick
    std::function<void()> go_on;
    std::function<void(error)> fail;
  };

  explicit wake_queue(limits bounds) : limits_(bounds) {
    // nop
  }

  /// False if as many of the model wait as may.
  bool add(const model_key&, waiter, time_point now);

  /// The model has a replica, or will not have one for this reason.
  void woken(const model_key&);
  void failed(const model_key&, const error& why);

  /// Fails who waited too long.
  void expire(time_point now);

  /// Fails everybody (the router stops).
  void close(const error& why);

  std::vector<model_key> models() const;

  /// Who waits, by model, added to what the router holds beside them: a model
  /// can be in both, its first replica has just gone or come. Forgets who has
  /// left.
  std::vector<protocol::router_load>
  load(std::vector<protocol::router_load> held = {});

private:
  struct entry {
    time_point since;
    waiter who;
  };

  std::deque<entry> take(const model_key&);

  const limits limits_;
  mutable std::mutex mutex_;
  std::map<model_key, std::deque<entry>> waiting_; // no empty ones
};

} // namespace troupe::router
