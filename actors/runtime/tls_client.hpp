#pragma once

#include "actors/runtime/tls_context.hpp"
#include "engine/codec/error.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <string_view>

namespace troupe::runtime {

/// One connection with TLS, for a thread that may block. All steps together
/// end at `deadline`. Errors (unavailable; corrupt if what came is no TLS, or
/// is its refusal) say what went wrong, not with whom.
class tls_client {
public:
  using time_point = std::chrono::steady_clock::time_point;

  tls_client(tls_context, time_point deadline);

  result<void> connect(const boost::asio::ip::address&, std::uint16_t port);

  result<void> shake_hands();

  result<void> write(std::string_view);

  /// Reads what is there, at least one byte; 0 = the other side has ended.
  result<std::size_t> read_some(char* to, std::size_t bytes_max);

  SSL* native() {
    return stream_.native_handle();
  }

private:
  using outcome = boost::system::error_code;

  /// Starts an operation, which tells `done`, and waits for it.
  outcome wait(const std::function<void(std::function<void(outcome)>)>& start);

  tls_context tls_;
  time_point deadline_;
  boost::asio::io_context io_{1};
  boost::asio::ssl::stream<boost::asio::ip::tcp::socket> stream_;
};

} // namespace troupe::runtime
