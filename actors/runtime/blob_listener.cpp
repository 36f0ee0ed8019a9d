#include "actors/runtime/blob_listener.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace troupe::runtime {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using tls_stream = asio::ssl::stream<tcp::socket>;
using shared_content = std::shared_ptr<const std::string>;

constexpr std::size_t line_bytes_max = 128;
constexpr std::size_t hash_digits = 64;

/// TLS 1.3 with our certificate, trusting the cluster's authority alone.
result<void> set_up(asio::ssl::context& context, const credentials& files) {
  error_code failed;
  auto check = [&](auto call) {
    if (!failed)
      call();
  };
  check([&] {
    context.use_certificate_chain_file(files.certificate.string(), failed);
  });
  check([&] {
    context.use_private_key_file(files.key.string(), asio::ssl::context::pem,
                                 failed);
  });
  check([&] { context.load_verify_file(files.authority.string(), failed); });
  check([&] {
    context.set_verify_mode(asio::ssl::verify_peer |
                                asio::ssl::verify_fail_if_no_peer_cert,
                            failed);
  });
  if (failed)
    return error{errc::io,
                 "cannot use the certificate files: " + failed.message()};
  // No session outlives its connection.
  ::SSL_CTX_set_session_cache_mode(context.native_handle(), SSL_SESS_CACHE_OFF);
  ::SSL_CTX_set_num_tickets(context.native_handle(), 0);
  return {};
}

bool is_hash(std::string_view text) {
  return text.size() == hash_digits &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::optional<std::uint64_t> to_number(std::string_view text) {
  std::uint64_t out = 0;
  auto* end = text.data() + text.size();
  auto [at, failed] = std::from_chars(text.data(), end, out);
  if (failed != std::errc{} || at != end)
    return std::nullopt;
  return out;
}

/// The words of a line without its end, split at single spaces.
std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> out;
  while (true) {
    auto space = line.find(' ');
    out.push_back(line.substr(0, space));
    if (space == std::string_view::npos)
      return out;
    line.remove_prefix(space + 1);
  }
}

struct part_request {
  std::string hash;
  std::uint64_t offset = 0;
  std::uint64_t length = 0; ///< 0 = to the end
};

std::optional<part_request> read_request(std::string_view line) {
  auto words = words_of(line);
  if (words.size() != 4 || words[0] != "GET" || !is_hash(words[1]))
    return std::nullopt;
  auto offset = to_number(words[2]);
  auto length = to_number(words[3]);
  if (!offset || !length)
    return std::nullopt;
  return part_request{std::string{words[1]}, *offset, *length};
}

std::string write_request(const part_request& x) {
  return "GET " + x.hash + " " + std::to_string(x.offset) + " " +
         std::to_string(x.length) + "\n";
}

} // namespace

std::string content_hash(std::string_view content) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (EVP_Digest(content.data(), content.size(), digest.data(), &size,
                 EVP_sha256(), nullptr) != 1)
    std::abort(); // no SHA-256 in this OpenSSL: nothing can be trusted
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    constexpr std::string_view digits = "0123456789abcdef";
    out += digits[digest[i] >> 4];
    out += digits[digest[i] & 15];
  }
  return out;
}

// -- server ------------------------------------------------------------------

namespace {

/// The blobs of a process; any thread.
class blob_shelf {
public:
  explicit blob_shelf(std::size_t bytes_max) : bytes_max_(bytes_max) {
    // nop
  }

  result<std::string> add(std::string content) {
    auto hash = content_hash(content);
    std::lock_guard guard{mutex_};
    if (blobs_.contains(hash))
      return hash;
    if (content.size() > bytes_max_ - bytes_)
      return error{errc::limit, "no room for a blob of " +
                                    std::to_string(content.size()) + " bytes"};
    bytes_ += content.size();
    blobs_.emplace(hash,
                   std::make_shared<const std::string>(std::move(content)));
    return hash;
  }

  shared_content find(const std::string& hash) const {
    std::lock_guard guard{mutex_};
    auto i = blobs_.find(hash);
    return i == blobs_.end() ? nullptr : i->second;
  }

private:
  mutable std::mutex mutex_;
  std::map<std::string, shared_content> blobs_;
  std::size_t bytes_ = 0;
  std::size_t bytes_max_;
};

/// One connection: handshake, request line, answer, end; or its time is over.
class conversation : public std::enable_shared_from_this<conversation> {
public:
  conversation(tcp::socket socket, asio::ssl::context& context,
               const blob_shelf& blobs, std::size_t& open)
      : stream_(std::move(socket), context), deadline_(stream_.get_executor()),
        blobs_(blobs), open_(open) {
    ++open_;
  }

  ~conversation() {
    --open_;
  }

  void run(std::chrono::milliseconds time_max) {
    deadline_.expires_after(time_max);
    deadline_.async_wait([weak = weak_from_this()](error_code stopped) {
      if (auto self = weak.lock(); self && !stopped)
        self->close();
    });
    stream_.async_handshake(tls_stream::server,
                            [self = shared_from_this()](error_code failed) {
                              if (!failed)
                                self->read_line();
                            });
  }

private:
  void read_line() {
    asio::async_read_until(
        stream_, asio::dynamic_buffer(line_, line_bytes_max), '\n',
        [self = shared_from_this()](error_code failed, std::size_t size) {
          if (!failed)
            self->answer(std::string_view{self->line_}.substr(0, size - 1));
        });
  }

  void answer(std::string_view line) {
    auto wanted = read_request(line);
    if (!wanted)
      return close();
    content_ = blobs_.find(wanted->hash);
    std::string_view part;
    if (content_) {
      part = std::string_view{*content_}.substr(
          std::min<std::uint64_t>(wanted->offset, content_->size()));
      if (wanted->length != 0)
        part = part.substr(0, wanted->length);
      head_ = "OK " + std::to_string(content_->size()) + " " +
              std::to_string(part.size()) + "\n";
    } else {
      head_ = "NO\n";
    }
    std::array<asio::const_buffer, 2> out{asio::buffer(head_),
                                          asio::buffer(part)};
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
  const blob_shelf& blobs_;
  std::size_t& open_;
  std::string line_;
  std::string head_;
  shared_content content_;
};

} // namespace

struct blob_listener::server {
  explicit server(const blob_limits& limits)
      : bounds(limits), blobs(limits.blobs_bytes_max) {
    // nop
  }

  result<void> open(const std::string& address) {
    error_code failed;
    auto ip = asio::ip::make_address(address, failed);
    auto check = [&](auto call) {
      if (!failed)
        call();
    };
    tcp::endpoint where{ip, 0};
    check([&] { acceptor.open(where.protocol(), failed); });
    check([&] { acceptor.bind(where, failed); });
    check(
        [&] { acceptor.listen(tcp::socket::max_listen_connections, failed); });
    if (failed)
      return error{errc::io,
                   "cannot listen on " + address + ": " + failed.message()};
    return {};
  }

  void accept() {
    acceptor.async_accept([this](error_code failed, tcp::socket socket) {
      if (failed == asio::error::operation_aborted)
        return;
      if (failed)
        return accept_later();
      if (conversations < bounds.connections_max)
        std::make_shared<conversation>(std::move(socket), tls, blobs,
                                       conversations)
            ->run(bounds.request_max);
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

  blob_limits bounds;
  blob_shelf blobs;
  std::size_t conversations = 0;
  asio::ssl::context tls{asio::ssl::context::tlsv13_server};
  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  asio::steady_timer pause{io};
  std::thread thread;
};

blob_listener::blob_listener(std::unique_ptr<server> from)
    : server_(std::move(from)) {
  // nop
}

blob_listener::~blob_listener() {
  server_->io.stop();
  server_->thread.join();
}

result<std::unique_ptr<blob_listener>>
blob_listener::start(const credentials& files, const std::string& address,
                     const blob_limits& limits) {
  auto made = std::make_unique<server>(limits);
  if (auto ready = set_up(made->tls, files); !ready)
    return ready.error();
  if (auto opened = made->open(address); !opened)
    return opened.error();
  made->accept();
  auto* io = &made->io;
  made->thread = std::thread{[io] { io->run(); }};
  return std::unique_ptr<blob_listener>{new blob_listener{std::move(made)}};
}

std::uint16_t blob_listener::port() const {
  error_code ignored;
  return server_->acceptor.local_endpoint(ignored).port();
}

result<std::string> blob_listener::add(std::string content) {
  return server_->blobs.add(std::move(content));
}

// -- client ------------------------------------------------------------------

namespace {

/// One request over one connection. Every step is bounded by the same deadline.
class blob_client {
public:
  blob_client(const protocol::endpoint& from, std::chrono::milliseconds timeout)
      : from_(from), deadline_(std::chrono::steady_clock::now() + timeout) {
    // nop
  }

  result<std::string> get(const part_request& wanted, const credentials& files,
                          std::size_t bytes_max) {
    if (auto ready = set_up(tls_, files); !ready)
      return ready.error();
    error_code failed;
    auto ip = asio::ip::make_address(from_.address, failed);
    if (failed)
      return error{errc::invalid_argument, "a blob's address is not numeric"};
    tls_stream stream{io_, tls_};
    auto request = write_request(wanted);
    auto done = wait(stream, [&](auto handler) {
      stream.next_layer().async_connect({ip, from_.blob_port}, handler);
    });
    if (!done)
      done = wait(stream, [&](auto handler) {
        stream.async_handshake(tls_stream::client, handler);
      });
    if (!done)
      done = wait(stream, [&](auto handler) {
        asio::async_write(
            stream, asio::buffer(request),
            [handler](error_code e, std::size_t) mutable { handler(e); });
      });
    if (done)
      return *done;
    return read_answer(stream, bytes_max);
  }

private:
  /// Starts an operation and waits for it; the error if it failed or the time
  /// is over.
  template <class Start>
  std::optional<error> wait(tls_stream& stream, Start start) {
    error_code outcome = asio::error::would_block;
    start([&](error_code e) { outcome = e; });
    io_.restart();
    io_.run_until(deadline_);
    if (outcome == asio::error::would_block) {
      error_code ignored;
      stream.next_layer().close(ignored);
      io_.restart();
      io_.run(); // the handler still refers to this frame
      return unreachable("no answer in time");
    }
    if (outcome)
      return unreachable(outcome.message());
    return std::nullopt;
  }

  result<std::string> read_answer(tls_stream& stream, std::size_t bytes_max) {
    std::string text;
    std::size_t line_size = 0;
    auto failed = wait(stream, [&](auto handler) {
      asio::async_read_until(stream, asio::dynamic_buffer(text, line_bytes_max),
                             '\n',
                             [&, handler](error_code e, std::size_t n) mutable {
                               line_size = n;
                               handler(e);
                             });
    });
    if (failed)
      return *failed;
    auto words = words_of(std::string_view{text}.substr(0, line_size - 1));
    if (words.size() == 1 && words[0] == "NO")
      return error{errc::not_found, "the process does not hold the blob"};
    auto size = words.size() == 3 && words[0] == "OK" ? to_number(words[2])
                                                      : std::nullopt;
    if (!size)
      return error{errc::corrupt, "a blob's answer is malformed"};
    if (*size > bytes_max)
      return error{errc::limit, "a blob of " + std::to_string(*size) +
                                    " bytes is too large"};
    auto have = text.size() - line_size;
    if (have > *size)
      return error{errc::corrupt, "a blob's answer is too long"};
    text.erase(0, line_size);
    text.resize(*size);
    failed = wait(stream, [&](auto handler) {
      asio::async_read(
          stream, asio::buffer(text.data() + have, text.size() - have),
          [handler](error_code e, std::size_t) mutable { handler(e); });
    });
    if (failed)
      return *failed;
    return text;
  }

  error unreachable(const std::string& why) const {
    return {errc::unavailable, "cannot get a blob from " + from_.address + ":" +
                                   std::to_string(from_.blob_port) + ": " +
                                   why};
  }

  const protocol::endpoint& from_;
  std::chrono::steady_clock::time_point deadline_;
  asio::ssl::context tls_{asio::ssl::context::tlsv13_client};
  asio::io_context io_{1};
};

} // namespace

result<std::string> fetch_blob(const protocol::endpoint& from,
                               const std::string& hash,
                               const credentials& files,
                               std::chrono::milliseconds timeout,
                               std::size_t bytes_max) {
  if (!is_hash(hash))
    return error{errc::invalid_argument, "not a blob's hash"};
  blob_client client{from, timeout};
  auto content = client.get({hash, 0, 0}, files, bytes_max);
  if (content && content_hash(*content) != hash)
    return error{errc::corrupt, "a blob is not what its hash says"};
  return content;
}

result<std::string> fetch_blob_part(const protocol::endpoint& from,
                                    const std::string& hash,
                                    std::uint64_t offset, std::uint64_t length,
                                    const credentials& files,
                                    std::chrono::milliseconds timeout) {
  if (!is_hash(hash) || length == 0)
    return error{errc::invalid_argument, "not a part of a blob"};
  blob_client client{from, timeout};
  return client.get({hash, offset, length}, files, length);
}

} // namespace troupe::runtime
