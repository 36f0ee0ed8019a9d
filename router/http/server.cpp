#include "router/http/server.hpp"

#include "router/http/session.hpp"

#include <atomic>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fmt/format.h>
#include <utility>

namespace troupe::http {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

/// How long accepting rests when the process is out of descriptors or memory.
constexpr std::chrono::milliseconds accept_rest{100};

/// Accepts connections while there is room for them. Its members but `context`
/// and `open` belong to the strand.
class listener : public std::enable_shared_from_this<listener> {
public:
  listener(asio::io_context& io, std::shared_ptr<session_context> context)
      : io_(io), strand_(asio::make_strand(io)), acceptor_(strand_),
        rest_(strand_), context_(std::move(context)) {
  }

  error_code open(const tcp::endpoint& where) {
    error_code failed;
    acceptor_.open(where.protocol(), failed);
    if (!failed)
      acceptor_.set_option(tcp::acceptor::reuse_address(true), failed);
    if (!failed)
      acceptor_.bind(where, failed);
    if (!failed)
      acceptor_.listen(tcp::acceptor::max_listen_connections, failed);
    return failed;
  }

  std::uint16_t port() const {
    error_code ignored;
    return acceptor_.local_endpoint(ignored).port();
  }

  /// Any thread.
  bool is_open() const {
    return open_;
  }

  /// Any thread.
  void wake() {
    asio::post(strand_, [self = shared_from_this()] { self->accept_next(); });
  }

  /// Any thread.
  void stop() {
    asio::post(strand_, [self = shared_from_this()] {
      error_code ignored;
      self->acceptor_.close(ignored);
      self->open_ = false;
      self->rest_.cancel();
    });
  }

private:
  void accept_next() {
    if (!acceptor_.is_open() || accepting_ || !context_->registry->has_room())
      return;
    accepting_ = true;
    acceptor_.async_accept(
        asio::make_strand(io_),
        [self = shared_from_this()](error_code failed, session::socket s) {
          self->accepting_ = false;
          self->on_accepted(failed, std::move(s));
        });
  }

  void on_accepted(error_code failed, session::socket s) {
    if (!failed)
      serve(std::move(s));
    else if (failed != asio::error::connection_aborted)
      return rest();
    accept_next();
  }

  void serve(session::socket s) {
    auto connection = session::make(context_, std::move(s));
    if (!context_->registry->add(connection))
      return;
    connection->start();
    if (context_->draining)
      connection->drain();
  }

  void rest() {
    if (!acceptor_.is_open())
      return;
    rest_.expires_after(accept_rest);
    rest_.async_wait([self = shared_from_this()](error_code failed) {
      if (!failed)
        self->accept_next();
    });
  }

  using timer =
      asio::basic_waitable_timer<std::chrono::steady_clock,
                                 asio::wait_traits<std::chrono::steady_clock>,
                                 session::executor>;

  asio::io_context& io_;
  session::executor strand_;
  asio::basic_socket_acceptor<tcp, session::executor> acceptor_;
  timer rest_;
  std::shared_ptr<session_context> context_;
  bool accepting_ = false;
  std::atomic<bool> open_ = true;
};

class server_on_sockets final : public server {
public:
  server_on_sockets(std::shared_ptr<session_context> context,
                    std::shared_ptr<listener> l)
      : context_(std::move(context)), listener_(std::move(l)),
        port_(listener_->port()) {
    listener_->wake();
  }

  ~server_on_sockets() override {
    close();
  }

  std::uint16_t port() const override {
    return port_;
  }

  void set_keep_alive(std::chrono::milliseconds idle_max) override {
    context_->keep_alive_ms = idle_max.count();
  }

  bool listening() const override {
    return listener_->is_open();
  }

  void stop_accepting() override {
    if (context_->draining.exchange(true))
      return;
    listener_->stop();
    for (auto& s : context_->registry->all())
      s->drain();
  }

  std::size_t requests_in_flight() const override {
    return context_->requests_in_flight;
  }

  std::size_t connections() const override {
    return context_->registry->size();
  }

  void close() override {
    stop_accepting();
    for (auto& s : context_->registry->release())
      s->close();
  }

private:
  std::shared_ptr<session_context> context_;
  std::shared_ptr<listener> listener_;
  std::uint16_t port_;
};

error cannot_listen(const server_options& options, const error_code& failed) {
  return {errc::io, fmt::format("cannot listen on {}:{}: {}", options.host,
                                options.port, failed.message())};
}

} // namespace

result<std::unique_ptr<server>> server::start(asio::io_context& io,
                                              server_options options,
                                              handler on_request) {
  error_code failed;
  auto found = tcp::resolver(io).resolve(
      options.host, std::to_string(options.port),
      tcp::resolver::passive | tcp::resolver::numeric_service, failed);
  if (failed)
    return cannot_listen(options, failed);
  auto context = std::make_shared<session_context>();
  context->options = std::move(options);
  context->keep_alive_ms = context->options.bounds.keep_alive.count();
  context->on_request = std::move(on_request);
  auto l = std::make_shared<listener>(io, context);
  if (auto refused = l->open(found.begin()->endpoint()))
    return cannot_listen(context->options, refused);
  context->registry = std::make_unique<session_registry>(
      context->options.bounds.connections, [weak = std::weak_ptr(l)] {
        if (auto strong = weak.lock())
          strong->wake();
      });
  return std::unique_ptr<server>(
      std::make_unique<server_on_sockets>(std::move(context), std::move(l)));
}

} // namespace troupe::http
