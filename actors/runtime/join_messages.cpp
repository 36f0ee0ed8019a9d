#include "actors/runtime/join_messages.hpp"

#include "actors/protocol/routing_table.hpp"

#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <limits>

namespace troupe::runtime {

namespace {

constexpr std::string_view join_line = "POST /join HTTP/1.1";
constexpr std::string_view answer_line = "HTTP/1.1 ";
constexpr std::size_t name_size_max = 63;

error not_http(const char* why) {
  return {errc::invalid_argument, why};
}

// -- HTTP --------------------------------------------------------------------

std::string lower_case(std::string_view text) {
  std::string out{text};
  for (auto& c : out)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c - 'A' + 'a');
  return out;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t";
  auto begin = std::min(text.find_first_not_of(blanks), text.size());
  text.remove_prefix(begin);
  return text.substr(0, text.find_last_not_of(blanks) + 1);
}

/// Only digits, and a number that makes sense as a size.
std::optional<std::size_t> to_size(std::string_view text) {
  std::size_t out = 0;
  auto* end = text.data() + text.size();
  auto [at, failed] = std::from_chars(text.data(), end, out);
  if (text.empty() || failed != std::errc{} || at != end)
    return std::nullopt;
  return out;
}

/// The size of the body by the header lines (each ends with CR LF).
result<std::size_t> body_size(std::string_view lines) {
  std::optional<std::size_t> size;
  while (!lines.empty()) {
    auto line = lines.substr(0, lines.find("\r\n"));
    lines.remove_prefix(line.size() + 2);
    auto colon = line.find(':');
    if (colon == 0 || colon == line.npos)
      return not_http("a header line has no name");
    auto name = lower_case(line.substr(0, colon));
    if (name == "transfer-encoding" || name == "content-encoding")
      return not_http("a coded body is not taken");
    if (name != "content-length")
      continue;
    auto value = to_size(trimmed(line.substr(colon + 1)));
    if (!value || size)
      return not_http("the Content-Length is not one number");
    size = value;
  }
  return size.value_or(0);
}

error too_large(std::size_t bytes_max) {
  return {errc::limit, "more than " + std::to_string(bytes_max) + " bytes"};
}

std::string write_http(std::string_view start_line, std::string_view headers,
                       const std::string& body) {
  return std::string{start_line} + "\r\n" + std::string{headers} +
         "Content-Type: application/json\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body;
}

// -- JSON --------------------------------------------------------------------

std::string json_string(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out = "\"";
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      out += "\\u00";
      out += digits[byte >> 4];
      out += digits[byte & 15];
    } else {
      out += c;
    }
  }
  return out + '"';
}

/// The fields of one JSON object; the first thing wrong with them is kept.
class field_reader {
public:
  explicit field_reader(std::string_view json) {
    simdjson::dom::element root;
    if (parser_.parse(json.data(), json.size()).get(root) || root.get(object_))
      failed_ = "the body is not a JSON object";
  }

  std::string text(std::string_view name) {
    std::string_view value;
    if (failed_.empty() && object_.at_key(name).get(value))
      fail(name, "a string");
    return std::string{value};
  }

  template <class Number>
  Number number(std::string_view name) {
    std::uint64_t value = 0;
    if (failed_.empty() && (object_.at_key(name).get(value) ||
                            value > std::numeric_limits<Number>::max()))
      fail(name, "a number in range");
    return failed_.empty() ? static_cast<Number>(value) : Number{0};
  }

  /// What was wrong; "" if nothing.
  const std::string& failed() const {
    return failed_;
  }

private:
  void fail(std::string_view name, std::string_view kind) {
    failed_ = "\"" + std::string{name} + "\" is not " + std::string{kind};
  }

  simdjson::dom::parser parser_;
  simdjson::dom::object object_;
  std::string failed_;
};

std::string_view status_of(errc code) {
  switch (code) {
  case errc::not_found:
    return "404 Not Found";
  case errc::limit:
    return "413 Content Too Large";
  case errc::unsupported:
    return "409 Conflict";
  case errc::io:
  case errc::internal:
  case errc::corrupt:
    return "500 Internal Server Error";
  default:
    return "400 Bad Request";
  }
}

} // namespace

std::optional<result<http_message>> read_http(std::string_view bytes,
                                              std::size_t bytes_max) {
  auto head_size = bytes.substr(0, bytes_max).find("\r\n\r\n");
  if (head_size == bytes.npos) {
    if (bytes.size() >= bytes_max)
      return too_large(bytes_max);
    return std::nullopt;
  }
  auto line_size = bytes.find("\r\n");
  http_message out;
  out.start_line = bytes.substr(0, line_size);
  auto lines = bytes.substr(0, head_size + 2);
  lines.remove_prefix(line_size + 2);
  auto size = body_size(lines);
  if (!size)
    return size.error();
  auto body_begin = head_size + 4;
  if (body_begin > bytes_max || *size > bytes_max - body_begin)
    return too_large(bytes_max);
  if (bytes.size() - body_begin < *size)
    return std::nullopt;
  if (bytes.size() - body_begin > *size)
    return not_http("something follows the message");
  out.body = bytes.substr(body_begin);
  return out;
}

std::string write_join_request(const join_request& x, std::string_view host) {
  return write_http(join_line, "Host: " + std::string{host} + "\r\n",
                    "{\"token\":" + json_string(x.token) +
                        ",\"node\":" + json_string(x.node) +
                        ",\"version\":" + std::to_string(x.version) +
                        ",\"request\":" + json_string(x.request) + "}");
}

std::string write_join_answer(const join_answer& x) {
  return write_http("HTTP/1.1 200 OK", "",
                    "{\"certificate\":" + json_string(x.certificate) +
                        ",\"authority\":" + json_string(x.authority) +
                        ",\"port\":" + std::to_string(x.port) +
                        ",\"version\":" + std::to_string(x.version) + "}");
}

std::string write_join_refusal(const error& why) {
  return write_http("HTTP/1.1 " + std::string{status_of(why.code)}, "",
                    "{\"error\":" + json_string(why.message) + "}");
}

result<join_request> read_join_request(const http_message& from) {
  if (from.start_line != join_line)
    return error{errc::not_found, "only \"POST /join\" over HTTP/1.1 is "
                                  "answered here"};
  field_reader fields{from.body};
  join_request out;
  out.token = fields.text("token");
  out.node = fields.text("node");
  out.version = fields.number<std::uint32_t>("version");
  out.request = fields.text("request");
  if (!fields.failed().empty())
    return error{errc::invalid_argument, fields.failed()};
  if (auto fit = check_worker_name(out.node); !fit)
    return fit.error();
  return out;
}

result<join_answer> read_join_answer(const http_message& from) {
  if (!from.start_line.starts_with(answer_line))
    return error{errc::corrupt, "the answer is not HTTP"};
  field_reader fields{from.body};
  join_answer out;
  if (!from.start_line.substr(answer_line.size()).starts_with("200")) {
    auto why = fields.text("error");
    return error{errc::invalid_argument,
                 fields.failed().empty() ? why : "no reason given"};
  }
  out.certificate = fields.text("certificate");
  out.authority = fields.text("authority");
  out.port = fields.number<std::uint16_t>("port");
  out.version = fields.number<std::uint32_t>("version");
  if (!fields.failed().empty())
    return error{errc::corrupt, "the head's answer: " + fields.failed()};
  return out;
}

result<void> check_worker_name(std::string_view name) {
  constexpr std::string_view first = "abcdefghijklmnopqrstuvwxyz0123456789";
  constexpr std::string_view all = "abcdefghijklmnopqrstuvwxyz0123456789-.";
  if (name.empty() || name.size() > name_size_max ||
      first.find(name.front()) == first.npos ||
      name.find_first_not_of(all) != name.npos)
    return error{
        errc::invalid_argument,
        "a node's name is 1 to 63 of a-z, 0-9, \"-\" and \".\", with a "
        "letter or digit first"};
  if (name == "head")
    return error{errc::invalid_argument, "\"head\" is the head's own name"};
  return {};
}

result<void> check_versions(std::uint32_t heads, std::uint32_t nodes) {
  if (protocol::understand_each_other(heads, nodes))
    return {};
  return error{errc::unsupported,
               "the head speaks version " + std::to_string(heads) +
                   " of the protocol and the node " + std::to_string(nodes) +
                   "; they may be one apart"};
}

} // namespace troupe::runtime
