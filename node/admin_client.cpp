#include "node/admin_client.hpp"

#include "actors/runtime/resolve.hpp"

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <vector>

namespace troupe::node {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

error bad_place(const std::string& text) {
  return {errc::invalid_argument, fmt::format("\"{}\" is no HOST:PORT", text)};
}

/// An address, or a name of letters, digits, hyphens and dots.
bool is_host(std::string_view text) {
  beast::error_code not_numeric;
  asio::ip::make_address(std::string{text}, not_numeric);
  return !not_numeric ||
         (!text.empty() && text.size() < 254 &&
          std::all_of(text.begin(), text.end(), [](unsigned char c) {
            return std::isalnum(c) || c == '-' || c == '.';
          }));
}

} // namespace

result<admin_place> parse_place(const std::string& text) {
  std::string_view left = text;
  for (std::string_view scheme : {"http://", "HTTP://"})
    if (left.starts_with(scheme))
      left.remove_prefix(scheme.size());
  while (left.ends_with('/'))
    left.remove_suffix(1);
  auto colon = left.rfind(':');
  if (colon == std::string_view::npos)
    return bad_place(text);
  auto host = left.substr(0, colon);
  auto digits = left.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']'))
    host = host.substr(1, host.size() - 2);
  admin_place out;
  out.host = host;
  auto read =
      std::from_chars(digits.data(), digits.data() + digits.size(), out.port);
  if (!is_host(host) || read.ec != std::errc{} ||
      read.ptr != digits.data() + digits.size() || out.port == 0)
    return bad_place(text);
  return out;
}

std::string to_string(const admin_place& place) {
  return place.host.find(':') == std::string::npos
             ? fmt::format("{}:{}", place.host, place.port)
             : fmt::format("[{}]:{}", place.host, place.port);
}

result<admin_answer> ask_admin(const admin_place& place,
                               const std::string& method,
                               const std::string& path, std::string body,
                               std::chrono::milliseconds time_max) {
  constexpr std::uint64_t body_bytes_max = 64u << 20;
  beast::error_code code;
  auto where = to_string(place);
  auto addresses =
      runtime::resolve(place.host, std::chrono::steady_clock::now() + time_max);
  if (!addresses)
    return error{addresses.error().code,
                 place.host + ": " + addresses.error().message};
  asio::io_context io;
  beast::tcp_stream stream{io};
  beast::flat_buffer buffer;
  http::request<http::string_body> request{http::string_to_verb(method), path,
                                           11};
  if (!body.empty())
    request.set(http::field::content_type, "application/json");
  request.body() = std::move(body);
  request.prepare_payload();
  http::response_parser<http::string_body> response;
  response.body_limit(body_bytes_max);
  auto keep = [&](beast::error_code ec, auto...) { code = ec; };
  // One step after the other, each within the time limit.
  auto step = [&](auto start) {
    if (code)
      return;
    stream.expires_after(time_max);
    start();
    io.restart();
    io.run();
  };
  std::vector<asio::ip::tcp::endpoint> there;
  for (const auto& address : *addresses)
    there.emplace_back(address, place.port);
  step([&] { stream.async_connect(there, keep); });
  if (code)
    return error{errc::unavailable,
                 fmt::format("no cluster answers on {} ({}); is `troupe run` "
                             "or `troupe start --head` running, and with this "
                             "admin port?",
                             where, code.message())};
  // By its number: listeners refuse names, which any page could take on.
  auto reached = stream.socket().remote_endpoint(code).address().to_string();
  request.set(http::field::host, to_string({reached, place.port}));
  step([&] { http::async_write(stream, request, keep); });
  step([&] { http::async_read(stream, buffer, response, keep); });
  if (code)
    return error{errc::unavailable,
                 fmt::format("{} gave no answer ({})", where, code.message())};
  return admin_answer{static_cast<int>(response.get().result_int()),
                      std::move(response.get().body())};
}

std::string encoded(const std::string& piece) {
  std::string out;
  for (unsigned char c : piece)
    if (std::isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~')
      out += static_cast<char>(c);
    else
      out += fmt::format("%{:02X}", c);
  return out;
}

std::string reason_of(const admin_answer& answer) {
  simdjson::dom::parser parser;
  simdjson::dom::element all;
  std::string_view message;
  if (parser.parse(answer.body).get(all) == simdjson::SUCCESS &&
      all["error"]["message"].get(message) == simdjson::SUCCESS)
    return std::string{message};
  return fmt::format("the answer was {}", answer.status);
}

} // namespace troupe::node
