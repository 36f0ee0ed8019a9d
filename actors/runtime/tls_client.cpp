#include "actors/runtime/tls_client.hpp"

#include <boost/asio/write.hpp>

namespace troupe::runtime {

namespace asio = boost::asio;

namespace {

result<void> to_result(boost::system::error_code failed) {
  if (failed == asio::error::would_block)
    return error{errc::unavailable, "no answer in time"};
  if (failed.category() == asio::error::get_ssl_category())
    return error{errc::corrupt, failed.message()};
  if (failed)
    return error{errc::unavailable, failed.message()};
  return {};
}

} // namespace

tls_client::tls_client(tls_context tls, time_point deadline)
    : tls_(std::move(tls)), deadline_(deadline), stream_(io_, *tls_) {
  // nop
}

tls_client::outcome tls_client::wait(
    const std::function<void(std::function<void(outcome)>)>& start) {
  outcome seen = asio::error::would_block;
  start([&seen](outcome x) { seen = x; });
  io_.restart();
  io_.run_until(deadline_);
  if (seen != asio::error::would_block)
    return seen;
  outcome ignored;
  stream_.next_layer().close(ignored);
  io_.restart();
  io_.run(); // the handler still refers to this frame
  return asio::error::would_block;
}

result<void> tls_client::connect(const asio::ip::address& to,
                                 std::uint16_t port) {
  auto failed = wait([&](auto done) {
    stream_.next_layer().async_connect({to, port}, done);
  });
  outcome ignored;
  stream_.next_layer().set_option(asio::ip::tcp::no_delay{true}, ignored);
  return to_result(failed);
}

result<void> tls_client::shake_hands() {
  return to_result(wait([&](auto done) {
    stream_.async_handshake(asio::ssl::stream_base::client, done);
  }));
}

result<void> tls_client::write(std::string_view bytes) {
  return to_result(wait([&](auto done) {
    asio::async_write(stream_, asio::buffer(bytes),
                      [done](outcome x, std::size_t) { done(x); });
  }));
}

result<std::size_t> tls_client::read_some(char* to, std::size_t bytes_max) {
  std::size_t size = 0;
  auto failed = wait([&](auto done) {
    stream_.async_read_some(asio::buffer(to, bytes_max),
                            [&size, done](outcome x, std::size_t n) {
                              size = n;
                              done(x);
                            });
  });
  if (failed == asio::error::eof ||
      failed == asio::ssl::error::stream_truncated)
    return std::size_t{0};
  if (auto done = to_result(failed); !done)
    return done.error();
  return size;
}

} // namespace troupe::runtime
