#include "actors/runtime/tls_listener.hpp"

#include "actors/runtime/listen_address.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include <algorithm>
#include <array>
#include <thread>

namespace troupe::runtime {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using tls_stream = asio::ssl::stream<tcp::socket>;

constexpr std::size_t read_bytes = 4096;

/// What all connections of a listener share.
struct listener_state {
  tls_context tls;
  tls_listener_options options;
  tls_answerer answer;
  std::size_t open = 0; ///< connections
};

/// One connection: handshake, request, answer, end; or its time is over.
class conversation : public std::enable_shared_from_this<conversation> {
public:
  conversation(tcp::socket socket, std::string from, listener_state& shared)
      : stream_(std::move(socket), *shared.tls),
        deadline_(stream_.get_executor()), from_(std::move(from)),
        shared_(shared) {
    ++shared_.open;
  }

  ~conversation() {
    --shared_.open;
  }

  void run() {
    deadline_.expires_after(shared_.options.request_max);
    deadline_.async_wait([weak = weak_from_this()](error_code stopped) {
      if (auto self = weak.lock(); self && !stopped)
        self->close();
    });
    stream_.async_handshake(tls_stream::server,
                            [self = shared_from_this()](error_code failed) {
                              if (!failed)
                                self->read();
                            });
  }

private:
  void read() {
    auto have = request_.size();
    auto room = shared_.options.request_bytes_max - have;
    if (room == 0)
      return close();
    request_.resize(have + std::min(room, read_bytes));
    stream_.async_read_some(
        asio::buffer(request_.data() + have, request_.size() - have),
        [self = shared_from_this(), have](error_code failed, std::size_t n) {
          self->request_.resize(have + n);
          if (!failed)
            self->answer();
        });
  }

  void answer() {
    auto made = shared_.answer(request_, from_);
    if (!made)
      return read();
    reply_ = std::move(*made);
    if (reply_.head.empty() && reply_.part.empty())
      return close();
    std::array<asio::const_buffer, 2> out{asio::buffer(reply_.head),
                                          asio::buffer(reply_.part)};
    asio::async_write(
        stream_, out, [self = shared_from_this()](error_code, std::size_t) {
          self->stream_.async_shutdown([self](error_code) { self->close(); });
        });
  }

  void close() {
    error_code ignored;
    stream_.next_layer().close(ignored);
    deadline_.cancel();
  }

  tls_stream stream_;
  asio::steady_timer deadline_;
  std::string from_;
  listener_state& shared_;
  std::string request_;
  tls_reply reply_;
};

} // namespace

struct tls_listener::server {
  result<void> open() {
    auto& address = shared.options.address;
    if (auto may = check_listen_address(address); !may)
      return may;
    error_code failed;
    auto check = [&](auto call) {
      if (!failed)
        call();
    };
    tcp::endpoint where{asio::ip::make_address(address), shared.options.port};
    check([&] { acceptor.open(where.protocol(), failed); });
    check([&] {
      acceptor.set_option(tcp::acceptor::reuse_address{true}, failed);
    });
    check([&] { acceptor.bind(where, failed); });
    check(
        [&] { acceptor.listen(tcp::socket::max_listen_connections, failed); });
    if (failed)
      return error{errc::io, "cannot listen on " + address + ":" +
                                 std::to_string(shared.options.port) + ": " +
                                 failed.message()};
    return {};
  }

  void accept() {
    acceptor.async_accept([this](error_code failed, tcp::socket socket) {
      if (failed == asio::error::operation_aborted)
        return;
      if (failed)
        return accept_later();
      error_code gone;
      socket.set_option(tcp::no_delay{true}, gone);
      auto from = socket.remote_endpoint(gone).address().to_string();
      if (!gone && shared.open < shared.options.connections_max)
        std::make_shared<conversation>(std::move(socket), std::move(from),
                                       shared)
            ->run();
      accept();
    });
  }

  /// Out of file descriptors, most likely: they come back.
  void accept_later() {
    pause.expires_after(std::chrono::milliseconds{100});
    pause.async_wait([this](error_code stopped) {
      if (!stopped)
        accept();
    });
  }

  listener_state shared;
  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  asio::steady_timer pause{io};
  std::thread thread;
};

tls_listener::tls_listener(std::unique_ptr<server> from)
    : server_(std::move(from)) {
  // nop
}

tls_listener::~tls_listener() {
  server_->io.stop();
  server_->thread.join();
}

result<std::unique_ptr<tls_listener>>
tls_listener::start(tls_context tls, const tls_listener_options& options,
                    tls_answerer answer) {
  auto made = std::make_unique<server>();
  made->shared.tls = std::move(tls);
  made->shared.options = options;
  made->shared.answer = std::move(answer);
  if (auto opened = made->open(); !opened)
    return opened.error();
  made->accept();
  auto* io = &made->io;
  made->thread = std::thread{[io] { io->run(); }};
  return std::unique_ptr<tls_listener>{new tls_listener{std::move(made)}};
}

std::uint16_t tls_listener::port() const {
  error_code ignored;
  return server_->acceptor.local_endpoint(ignored).port();
}

} // namespace troupe::runtime
