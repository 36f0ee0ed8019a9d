#pragma once

#include "router/exchange.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>

namespace troupe::router {

/// The client of a request that waits for a text thread or a model card. It is
/// answered once, by whoever comes first: who reads the request, the time limit
/// or its own departure. Any thread.
class waiting_client : public std::enable_shared_from_this<waiting_client> {
public:
  /// `time_limit` counts from the request's arrival; 0 = none.
  waiting_client(boost::asio::io_context&, std::unique_ptr<exchange>,
                 std::chrono::milliseconds time_limit);

  /// From now on time and departure count. Once.
  void watch();

  /// False once it was answered, has left or was taken.
  bool waits() const;

  void fail(const api::api_error&);
  void set_user(std::string);

  /// From its arrival, if that is less than before; before `watch` or after it.
  void shorten(std::chrono::milliseconds time_limit);

  /// See exchange; false also if it waits no longer.
  bool join(const std::string& group);

  /// For who answers from here on; null if it waits no longer.
  std::unique_ptr<exchange> take();

private:
  mutable std::mutex mutex_;
  std::unique_ptr<exchange> client_;
  boost::asio::steady_timer timer_; // under the mutex, too
  void set_timer();                 // under the mutex

  std::chrono::milliseconds time_limit_;
};

} // namespace troupe::router
