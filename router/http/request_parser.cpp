#include "router/http/request_parser.hpp"

#include <algorithm>
#include <utility>

namespace troupe::http {

namespace {

/// Room in a request line for method, version and spaces.
constexpr std::size_t request_line_frame_bytes = 64;

/// For all chunk extensions and trailers of a request together.
constexpr std::size_t extra_bytes_max = 8 * 1024;

/// "ffffffffffffffff\r\n"
constexpr std::size_t chunk_head_bytes = 18;

/// A body is not given more room than this on its mere announcement.
constexpr std::uint64_t body_reserve_max = 1u << 20;

/// Stores `value` unless the field has been there before.
bool note_once(std::optional<std::string>& place, std::string_view value) {
  if (place)
    return false;
  place.emplace(value);
  return true;
}

} // namespace

std::string_view request::header(std::string_view name) const {
  for (auto& [field, value] : headers)
    if (equal_ignoring_case(field, name))
      return value;
  return {};
}

request_parser::request_parser(const limits& bounds)
    : bounds_(&bounds), head_bytes_left_(bounds.header_bytes),
      extra_bytes_left_(extra_bytes_max) {
}

std::size_t request_parser::feed(std::string_view bytes) {
  std::size_t used = 0;
  while (used < bytes.size() && part_ != part::done && part_ != part::failed)
    used += step(bytes.substr(used));
  return used;
}

request_parser::stage request_parser::where() const {
  switch (part_) {
  case part::request_line:
    return stage::request_line;
  case part::field_line:
    return stage::fields;
  case part::done:
    return stage::done;
  case part::failed:
    return stage::failed;
  default:
    return stage::body;
  }
}

const request_parser::failure& request_parser::why() const {
  return failure_;
}

bool request_parser::started() const {
  return part_ != part::request_line || !line_.empty();
}

std::size_t request_parser::body_bytes() const {
  return request_.body.size();
}

const request& request_parser::current() const {
  return request_;
}

int request_parser::minor_version() const {
  return minor_version_;
}

bool request_parser::keep_alive() const {
  return !close_asked_ && (minor_version_ == 1 || keep_alive_asked_);
}

bool request_parser::expects_continue() const {
  return expects_continue_;
}

request request_parser::take() {
  auto taken = std::move(request_);
  *this = request_parser(*bounds_);
  return taken;
}

std::size_t request_parser::step(std::string_view bytes) {
  switch (part_) {
  case part::counted_body:
    return take_body(bytes, part::done);
  case part::chunk_data:
    return take_body(bytes, part::chunk_end);
  case part::chunk_end:
    return take_chunk_end(bytes.front());
  default:
    return take_line(bytes);
  }
}

std::size_t request_parser::take_line(std::string_view bytes) {
  auto newline = bytes.find('\n');
  auto used = std::min(newline, bytes.size() - 1) + 1;
  if (line_.size() + used > line_limit()) {
    fail_too_long();
    return used;
  }
  if (newline == bytes.npos) {
    line_.append(bytes);
    return used;
  }
  auto line = bytes.substr(0, used);
  std::string pieces;
  if (!line_.empty()) {
    pieces = std::exchange(line_, {});
    line = pieces.append(line);
  }
  if (line.size() < 2 || line[line.size() - 2] != '\r')
    fail(400, "A line must end with CR LF.");
  else
    on_line(line.substr(0, line.size() - 2));
  return used;
}

std::size_t request_parser::take_body(std::string_view bytes, part next) {
  auto used = std::min<std::uint64_t>(bytes.size(), body_left_);
  request_.body.append(bytes.substr(0, used));
  body_left_ -= used;
  if (body_left_ == 0)
    part_ = next;
  return used;
}

std::size_t request_parser::take_chunk_end(char c) {
  if (c != (chunk_end_begun_ ? '\n' : '\r'))
    fail(400, "A chunk must end with CR LF.");
  else if (chunk_end_begun_)
    part_ = part::chunk_head;
  chunk_end_begun_ = !chunk_end_begun_;
  return 1;
}

std::size_t request_parser::line_limit() const {
  switch (part_) {
  case part::request_line:
    return bounds_->target_bytes + request_line_frame_bytes;
  case part::field_line:
    return head_bytes_left_;
  case part::chunk_head:
    return extra_bytes_left_ + chunk_head_bytes;
  default:
    return extra_bytes_left_ + 2;
  }
}

void request_parser::on_line(std::string_view line) {
  switch (part_) {
  case part::request_line:
    return on_request_line(line);
  case part::field_line:
    return on_field_line(line);
  case part::chunk_head:
    return on_chunk_head(line);
  default:
    return on_trailer_line(line);
  }
}

void request_parser::on_request_line(std::string_view line) {
  if (line.empty() && !blank_line_seen_) {
    blank_line_seen_ = true;
    return;
  }
  auto first = line.find(' ');
  auto last = line.rfind(' ');
  if (first == last)
    return fail(400, "The request line must be: method, target, version.");
  auto method = line.substr(0, first);
  if (!is_token(method))
    return fail(400, "The method is not a token.");
  if (!read_version(line.substr(last + 1)) ||
      !read_target(line.substr(first + 1, last - first - 1)))
    return;
  request_.method = method;
  part_ = part::field_line;
}

bool request_parser::read_version(std::string_view text) {
  auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (text.size() != 8 || text.substr(0, 5) != "HTTP/" || !is_digit(text[5]) ||
      text[6] != '.' || !is_digit(text[7])) {
    fail(400, "The version is malformed.");
    return false;
  }
  if (text[5] != '1' || text[7] > '1') {
    fail(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.");
    return false;
  }
  minor_version_ = text[7] - '0';
  return true;
}

bool request_parser::read_target(std::string_view text) {
  if (text.size() > bounds_->target_bytes) {
    fail(414, "The request target is too long.");
    return false;
  }
  auto parsed = parse_target(text);
  auto path = parsed ? decode_path(parsed->path) : std::nullopt;
  if (!path) {
    fail(400, "The request target is malformed.");
    return false;
  }
  authority_ = parsed->authority;
  request_.path = std::move(*path);
  request_.query = parsed->query;
  request_.target = parsed->path.empty() ? "/" : parsed->path;
  if (parsed->has_query)
    request_.target.append("?").append(parsed->query);
  return true;
}

void request_parser::on_field_line(std::string_view line) {
  head_bytes_left_ -= line.size() + 2;
  if (line.empty())
    return on_head_end();
  if (request_.headers.size() == bounds_->header_fields)
    return fail(431, "There are too many header fields.");
  auto f = parse_field(line);
  if (!f)
    return fail(400, "A header field is malformed.");
  if (!note_framing(*f))
    return fail(400, "A header field that may come once came twice.");
  request_.headers.emplace_back(f->name, f->value);
}

bool request_parser::note_framing(const field& f) {
  auto is = [&](std::string_view name) {
    return equal_ignoring_case(f.name, name);
  };
  if (is("host"))
    return note_once(framing_.host, f.value);
  if (is("content-length"))
    return note_once(framing_.length, f.value);
  if (is("transfer-encoding"))
    return note_once(framing_.coding, f.value);
  if (is("expect"))
    return note_once(framing_.expect, f.value);
  if (is("content-encoding")) {
    coded_content_ |= !equal_ignoring_case(f.value, "identity");
  } else if (is("connection")) {
    close_asked_ |= lists_token(f.value, "close");
    keep_alive_asked_ |= lists_token(f.value, "keep-alive");
  }
  return true;
}

void request_parser::on_head_end() {
  if (!check_host() || !check_framing())
    return;
  if (coded_content_)
    return fail(415, "Content codings are not accepted.");
  if (!check_expectation())
    return;
  if (framing_.coding) {
    part_ = part::chunk_head;
    return;
  }
  if (body_left_ > bounds_->body_bytes)
    return fail(413, "The request body is too large.");
  request_.body.reserve(std::min(body_left_, body_reserve_max));
  part_ = body_left_ == 0 ? part::done : part::counted_body;
}

bool request_parser::check_host() {
  if (!framing_.host || !is_host(*framing_.host)) {
    fail(400, "There must be one valid Host field.");
    return false;
  }
  if (!authority_.empty() && !equal_ignoring_case(authority_, *framing_.host)) {
    fail(400, "The target and the Host field name different hosts.");
    return false;
  }
  return true;
}

bool request_parser::check_framing() {
  if (framing_.coding) {
    if (framing_.length || minor_version_ == 0 ||
        !equal_ignoring_case(*framing_.coding, "chunked")) {
      fail(400, "Transfer-Encoding must be \"chunked\", in HTTP/1.1, without "
                "Content-Length.");
      return false;
    }
  } else if (framing_.length) {
    auto length = parse_content_length(*framing_.length);
    if (!length) {
      fail(400, "Content-Length must be one decimal number.");
      return false;
    }
    body_left_ = *length;
  }
  return true;
}

bool request_parser::check_expectation() {
  if (!framing_.expect || minor_version_ == 0)
    return true;
  if (!equal_ignoring_case(*framing_.expect, "100-continue")) {
    fail(417, "Only the expectation 100-continue is known.");
    return false;
  }
  expects_continue_ = true;
  return true;
}

void request_parser::on_chunk_head(std::string_view line) {
  auto head = parse_chunk_head(line);
  if (!head)
    return fail(400, "A chunk size is malformed.");
  if (head->extension_bytes > extra_bytes_left_)
    return fail_too_long();
  extra_bytes_left_ -= head->extension_bytes;
  if (head->size > bounds_->body_bytes - request_.body.size())
    return fail(413, "The request body is too large.");
  body_left_ = head->size;
  part_ = body_left_ == 0 ? part::trailer_line : part::chunk_data;
}

void request_parser::on_trailer_line(std::string_view line) {
  if (line.empty()) {
    part_ = part::done;
    return;
  }
  extra_bytes_left_ -= line.size();
  if (!parse_field(line))
    fail(400, "A trailer field is malformed.");
}

void request_parser::fail(int status, std::string_view sentence) {
  part_ = part::failed;
  failure_ = {status, sentence};
}

void request_parser::fail_too_long() {
  switch (part_) {
  case part::request_line:
    return fail(414, "The request target is too long.");
  case part::field_line:
    return fail(431, "The header fields are too large.");
  default:
    return fail(400, "Chunk extensions and trailers are too large.");
  }
}

} // namespace troupe::http
