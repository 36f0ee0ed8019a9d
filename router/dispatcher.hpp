#pragma once

#include "actors/protocol/routing_table.hpp"
#include "actors/protocol/token_batch.hpp"
#include "engine/codec/error.hpp"
#include "router/request_table.hpp"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

namespace troupe::router {

/// Where the news of one client request goes. Called by the router actor, in
/// order; must be quick (it posts to the Asio side).
class reply_sink {
public:
  virtual ~reply_sink() = default;

  /// News of a choice that `from` serves.
  virtual void
  on_tokens(std::uint32_t choice, protocol::choice_tokens news,
            std::shared_ptr<const protocol::replica_route> from) = 0;

  /// The end of every choice that had not ended; nothing follows. With an
  /// incident id (see command::fail) the client may read why.
  virtual void on_failed(command::fail) = 0;
};

/// The way from the Asio threads to the router actor: an inbox and a bell. The
/// inbox is as bounded as the requests in flight are: each puts at most one
/// submission, one cancellation and one per choice in it. Any thread.
class dispatcher {
public:
  struct submitted {
    submission what;
    std::shared_ptr<reply_sink> sink;
  };

  struct request_cancelled {
    std::uint64_t request = 0;
  };

  struct choice_cancelled {
    std::uint64_t request = 0;
    std::uint32_t choice = 0;
  };

  using event = std::variant<submitted, request_cancelled, choice_cancelled>;

  /// A number for a new request.
  std::uint64_t next_request() {
    return ++last_request_;
  }

  void submit(submission, std::shared_ptr<reply_sink>);
  void cancel_request(std::uint64_t request);
  void cancel_choice(std::uint64_t request, std::uint32_t choice);

  /// Ends everything under way with this error and refuses what follows; the
  /// first call counts.
  void close(error why);

  /// The actor is gone, or the router is stopping.
  bool closed() const;

  // The actor's side.

  /// `ring` is called, with no lock held, when the inbox is no longer empty.
  void on_ring(std::function<void()> ring);

  struct delivery {
    std::vector<event> events;
    bool closed = false;
    error why; ///< with closed
  };

  /// All events so far; the next one rings again.
  delivery take();

private:
  /// False once closed.
  bool put(event);

  mutable std::mutex mutex_;
  std::function<void()> ring_;
  std::vector<event> inbox_;
  bool rung_ = false;
  bool closed_ = false;
  error why_;
  std::atomic<std::uint64_t> last_request_ = 0;
};

} // namespace troupe::router
