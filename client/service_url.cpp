#include "client/service_url.hpp"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>

namespace troupe::client {

namespace {

error bad(std::string_view text, std::string_view why) {
  return {errc::invalid_argument, fmt::format("URL '{}': {}", text, why)};
}

/// Takes the front of `text` up to one of `ends`.
std::string_view take_until(std::string_view& text, std::string_view ends) {
  auto end = std::min(text.find_first_of(ends), text.size());
  auto out = text.substr(0, end);
  text.remove_prefix(end);
  return out;
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix))
    return false;
  text.remove_prefix(prefix.size());
  return true;
}

bool is_plain(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return c > 0x20 && c < 0x7f; });
}

} // namespace

std::string service_url::authority() const {
  auto shown = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return port == (tls ? 443 : 80) ? shown : fmt::format("{}:{}", shown, port);
}

result<service_url> parse_service_url(std::string_view text) {
  service_url out;
  auto rest = text;
  if (!is_plain(text))
    return bad(text, "has blanks or characters that are not ASCII");
  if (take_prefix(rest, "https://"))
    out.tls = true;
  else if (!take_prefix(rest, "http://") &&
           rest.find("://") != std::string_view::npos)
    return bad(text, "begins with neither http:// nor https://");
  if (rest.find_first_of("@?#") != std::string_view::npos)
    return bad(text, "a user, a query or a fragment has no place in it");
  out.port = out.tls ? 443 : 80;
  if (take_prefix(rest, "[")) {
    out.host = take_until(rest, "]");
    if (!take_prefix(rest, "]"))
      return bad(text, "its [ is not closed");
  } else {
    out.host = take_until(rest, ":/");
  }
  if (out.host.empty())
    return bad(text, "has no host");
  if (take_prefix(rest, ":")) {
    auto digits = take_until(rest, "/");
    auto read =
        std::from_chars(digits.data(), digits.data() + digits.size(), out.port);
    if (read.ec != std::errc{} || read.ptr != digits.data() + digits.size() ||
        out.port == 0)
      return bad(text, "its port is not from 1 to 65535");
  }
  while (rest.ends_with('/'))
    rest.remove_suffix(1);
  if (rest == "/v1" || rest.ends_with("/v1"))
    rest.remove_suffix(3);
  out.path = rest;
  return out;
}

} // namespace troupe::client
