#include "router/http/response.hpp"

#include "router/http/syntax.hpp"

#include <algorithm>
#include <array>
#include <ctime>
#include <fmt/format.h>
#include <iterator>

namespace troupe::http {

namespace {

/// "Sun, 06 Nov 1994 08:49:37 GMT", made once per second and thread.
std::string_view date_now() {
  static constexpr std::array days{"Sun", "Mon", "Tue", "Wed",
                                   "Thu", "Fri", "Sat"};
  static constexpr std::array months{"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  thread_local std::time_t made_at = -1;
  thread_local std::string text;
  auto now = std::time(nullptr);
  if (now != made_at) {
    std::tm t{};
    gmtime_r(&now, &t);
    text = fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", days[t.tm_wday],
                       t.tm_mday, months[t.tm_mon], t.tm_year + 1900, t.tm_hour,
                       t.tm_min, t.tm_sec);
    made_at = now;
  }
  return text;
}

bool may_send(std::string_view name, std::string_view value) {
  static constexpr std::array<std::string_view, 4> owned{
      "content-length", "transfer-encoding", "connection", "date"};
  return is_token(name) && is_field_value(value) &&
         std::none_of(owned.begin(), owned.end(), [&](std::string_view o) {
           return equal_ignoring_case(name, o);
         });
}

} // namespace

std::string_view reason_phrase(int status) {
  switch (status) {
  case 200:
    return "OK";
  case 201:
    return "Created";
  case 202:
    return "Accepted";
  case 204:
    return "No Content";
  case 206:
    return "Partial Content";
  case 301:
    return "Moved Permanently";
  case 302:
    return "Found";
  case 303:
    return "See Other";
  case 304:
    return "Not Modified";
  case 307:
    return "Temporary Redirect";
  case 308:
    return "Permanent Redirect";
  case 400:
    return "Bad Request";
  case 401:
    return "Unauthorized";
  case 403:
    return "Forbidden";
  case 404:
    return "Not Found";
  case 405:
    return "Method Not Allowed";
  case 406:
    return "Not Acceptable";
  case 408:
    return "Request Timeout";
  case 409:
    return "Conflict";
  case 410:
    return "Gone";
  case 411:
    return "Length Required";
  case 412:
    return "Precondition Failed";
  case 413:
    return "Content Too Large";
  case 414:
    return "URI Too Long";
  case 415:
    return "Unsupported Media Type";
  case 416:
    return "Range Not Satisfiable";
  case 417:
    return "Expectation Failed";
  case 422:
    return "Unprocessable Content";
  case 424:
    return "Failed Dependency";
  case 429:
    return "Too Many Requests";
  case 431:
    return "Request Header Fields Too Large";
  case 499:
    return "Client Closed Request";
  case 500:
    return "Internal Server Error";
  case 501:
    return "Not Implemented";
  case 502:
    return "Bad Gateway";
  case 503:
    return "Service Unavailable";
  case 504:
    return "Gateway Timeout";
  case 505:
    return "HTTP Version Not Supported";
  default:
    return "";
  }
}

bool status_has_body(int status) {
  return status != 204 && status != 304;
}

void append_head(std::string& out, int status, const header_list& headers,
                 const response_frame& frame) {
  if (status < 200 || status > 599)
    status = 500;
  auto end = std::back_inserter(out);
  fmt::format_to(end, "{}{} {}\r\nDate: {}\r\n", head_start, status,
                 reason_phrase(status), date_now());
  for (auto& [name, value] : headers)
    if (may_send(name, value))
      out.append(name).append(": ").append(value).append("\r\n");
  if (frame.content_length)
    fmt::format_to(end, "Content-Length: {}\r\n", *frame.content_length);
  if (frame.chunked)
    out.append("Transfer-Encoding: chunked\r\n");
  if (frame.close)
    out.append("Connection: close\r\n");
  else if (frame.minor_version == 0)
    out.append("Connection: keep-alive\r\n");
  out.append("\r\n");
}

void append_chunk(std::string& out, std::string_view bytes) {
  if (bytes.empty())
    return;
  fmt::format_to(std::back_inserter(out), "{:x}\r\n", bytes.size());
  out.append(bytes).append("\r\n");
}

} // namespace troupe::http
