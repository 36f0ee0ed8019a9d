#include "client/exchange.hpp"

#include "client/event_parser.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <fmt/format.h>
#include <openssl/ssl.h>
#include <simdjson.h>

#include <array>
#include <optional>

namespace troupe::client {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using beast::error_code;

/// Errors come back as values.
constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t body_bytes_max = 16u << 20;
constexpr std::size_t piece_bytes = 16 * 1024;

http::request<http::string_body> request_of(const service_url& where,
                                            const call& what) {
  http::request<http::string_body> out{http::string_to_verb(what.method),
                                       where.path + what.path, 11};
  out.set(http::field::host, where.authority());
  out.set(http::field::user_agent, "troupe");
  out.set(http::field::connection, "close");
  if (!what.api_key.empty())
    out.set(http::field::authorization, "Bearer " + what.api_key);
  if (!what.body.empty())
    out.set(http::field::content_type, "application/json");
  out.body() = what.body;
  out.prepare_payload();
  return out;
}

error gone(const service_url& where, const char* doing, error_code why) {
  return {errc::unavailable,
          fmt::format("{}: {}: {}", where.authority(), doing, why.message())};
}

/// Sends a request and reads its answer, whatever the stream is made of.
template <class Stream>
class conversation {
public:
  conversation(Stream& stream, const service_url& where,
               const exchange_limits& limits,
               std::function<void(std::string_view)> on_event)
      : stream_(stream), where_(where), limits_(limits),
        events_([this, handler = std::move(on_event)](std::string_view data) {
          if (data == "[DONE]")
            out_.done = true;
          else
            handler(data);
        }) {
    // nop
  }

  asio::awaitable<result<answer>> run(const call& what) {
    auto request = request_of(where_, what);
    expire_after(limits_.silence_max);
    if (auto [failed, n] =
            co_await http::async_write(stream_, request, as_result);
        failed)
      co_return gone(where_, "cannot send", failed);
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    expire_after(limits_.silence_max);
    if (auto [failed, n] = co_await http::async_read_header(stream_, buffer_,
                                                            parser, as_result);
        failed)
      co_return gone(where_, "no answer", failed);
    out_.status = parser.get().result_int();
    is_stream_ = parser.get()[http::field::content_type].starts_with(
        "text/event-stream");
    while (!parser.is_done())
      if (auto failed = co_await read_piece(parser))
        co_return *failed;
    co_return std::move(out_);
  }

private:
  void expire_after(std::chrono::seconds time) {
    beast::get_lowest_layer(stream_).expires_after(time);
  }

  asio::awaitable<std::optional<error>>
  read_piece(http::response_parser<http::buffer_body>& parser) {
    auto& body = parser.get().body();
    body.data = piece_.data();
    body.size = piece_.size();
    body.more = true;
    expire_after(limits_.silence_max);
    auto [failed, n] =
        co_await http::async_read_some(stream_, buffer_, parser, as_result);
    if (failed && failed != http::error::need_buffer)
      co_return gone(where_, "the answer is cut off", failed);
    co_return take({piece_.data(), piece_.size() - body.size});
  }

  std::optional<error> take(std::string_view bytes) {
    if (is_stream_) {
      auto fed = events_.feed(bytes);
      return fed ? std::nullopt : std::optional{fed.error()};
    }
    if (out_.body.size() + bytes.size() > body_bytes_max)
      return error{errc::limit, where_.authority() + ": too long an answer"};
    out_.body += bytes;
    return std::nullopt;
  }

  Stream& stream_;
  const service_url& where_;
  const exchange_limits& limits_;
  event_parser events_;
  beast::flat_buffer buffer_;
  std::array<char, piece_bytes> piece_;
  bool is_stream_ = false;
  answer out_;
};

asio::awaitable<error_code> connect(beast::tcp_stream& stream,
                                    const service_url& where,
                                    std::chrono::seconds time) {
  tcp::resolver resolver{stream.get_executor()};
  auto [unknown, found] = co_await resolver.async_resolve(
      where.host, std::to_string(where.port), as_result);
  if (unknown)
    co_return unknown;
  stream.expires_after(time);
  auto [failed, reached] = co_await stream.async_connect(found, as_result);
  if (!failed)
    stream.socket().set_option(tcp::no_delay{true});
  co_return failed;
}

} // namespace

asio::awaitable<result<answer>>
exchange(const service_url& where, const call& what,
         std::function<void(std::string_view)> on_event,
         exchange_limits limits) {
  auto executor = co_await asio::this_coro::executor;
  if (!where.tls) {
    beast::tcp_stream stream{executor};
    if (auto failed = co_await connect(stream, where, limits.connect_max))
      co_return gone(where, "cannot connect", failed);
    conversation talk{stream, where, limits, std::move(on_event)};
    co_return co_await talk.run(what);
  }
  asio::ssl::context trust{asio::ssl::context::tls_client};
  trust.set_default_verify_paths();
  trust.set_verify_mode(asio::ssl::verify_peer);
  beast::ssl_stream<beast::tcp_stream> stream{executor, trust};
  stream.set_verify_callback(asio::ssl::host_name_verification{where.host});
  SSL_set_tlsext_host_name(stream.native_handle(), where.host.c_str());
  if (auto failed =
          co_await connect(stream.next_layer(), where, limits.connect_max))
    co_return gone(where, "cannot connect", failed);
  if (auto [failed] = co_await stream.async_handshake(
          asio::ssl::stream_base::client, as_result);
      failed)
    co_return gone(where, "no TLS with it", failed);
  conversation talk{stream, where, limits, std::move(on_event)};
  co_return co_await talk.run(what);
}

result<answer> exchange_now(const service_url& where, const call& what,
                            exchange_limits limits) {
  asio::io_context io;
  result<answer> out = error{errc::internal, "nothing was asked"};
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        out = co_await exchange(
            where, what, [](auto) {}, limits);
      },
      asio::detached);
  io.run();
  return out;
}

std::string reason_of(const answer& of) {
  simdjson::dom::parser parser;
  simdjson::dom::element all;
  std::string_view message;
  if (parser.parse(of.body).get(all) == simdjson::SUCCESS &&
      (all["error"]["message"].get(message) == simdjson::SUCCESS ||
       all["message"].get(message) == simdjson::SUCCESS))
    return std::string{message};
  return fmt::format("the answer was {}", of.status);
}

} // namespace troupe::client
