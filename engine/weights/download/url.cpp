#include "engine/weights/download/url.hpp"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>

namespace troupe::download {

namespace {

using url_handle = std::unique_ptr<CURLU, decltype(&curl_url_cleanup)>;

constexpr std::size_t url_bytes_max = 16 * 1024;

url_handle parsed(const std::string& url) {
  url_handle out{curl_url(), curl_url_cleanup};
  if (url.size() > url_bytes_max ||
      curl_url_set(out.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK)
    out.reset();
  return out;
}

/// Empty if the URL has no such part.
std::string part(const url_handle& url, CURLUPart which, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url.get(), which, &text, flags) != CURLUE_OK)
    return {};
  std::string out{text};
  curl_free(text);
  return out;
}

bool is_unreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

} // namespace

std::string percent_encode(std::string_view text, bool keep_slashes) {
  std::string out;
  for (char c : text)
    if (is_unreserved(c) || (c == '/' && keep_slashes))
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  return out;
}

bool url_parts::is_loopback() const {
  return host == "localhost" || host == "[::1]" ||
         (host.starts_with("127.") &&
          host.find_first_not_of("0123456789.") == host.npos);
}

result<url_parts> parse_url(const std::string& url) {
  auto from = parsed(url);
  if (!from)
    return error{errc::invalid_argument, "not a URL"};
  url_parts out;
  out.scheme = part(from, CURLUPART_SCHEME);
  if (out.scheme != "http" && out.scheme != "https")
    return error{errc::invalid_argument, "not an http:// or https:// URL"};
  out.host = part(from, CURLUPART_HOST);
  std::transform(out.host.begin(), out.host.end(), out.host.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  out.port = part(from, CURLUPART_PORT, CURLU_DEFAULT_PORT);
  out.path = part(from, CURLUPART_PATH);
  out.has_user = !part(from, CURLUPART_USER).empty() ||
                 !part(from, CURLUPART_PASSWORD).empty();
  out.has_query = !part(from, CURLUPART_QUERY).empty();
  out.has_fragment = !part(from, CURLUPART_FRAGMENT).empty();
  return out;
}

bool keeps_secrets(const std::string& url) {
  auto parts = parse_url(url);
  return parts && (parts->scheme == "https" || parts->is_loopback());
}

result<std::string> resolve_url(const std::string& base,
                                const std::string& location) {
  auto from = parsed(base);
  if (!from || location.size() > url_bytes_max ||
      curl_url_set(from.get(), CURLUPART_URL, location.c_str(), 0) != CURLUE_OK)
    return error{errc::corrupt, "it redirects to what is no URL"};
  return part(from, CURLUPART_URL);
}

std::string shown_url(const std::string& url) {
  auto parts = parse_url(url);
  if (!parts)
    return "(no URL)";
  auto is_default = parts->port == (parts->scheme == "http" ? "80" : "443");
  return fmt::format("{}://{}{}{}", parts->scheme, parts->host,
                     is_default ? "" : ":" + parts->port, parts->path);
}

} // namespace troupe::download
