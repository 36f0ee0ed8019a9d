#include "router/http/syntax.hpp"

#include <algorithm>
#include <array>
#include <charconv>

namespace troupe::http {

namespace {

enum char_class : std::uint8_t {
  token_char = 1,
  value_char = 2,
  host_char = 4,
  target_char = 8, ///< path or query, '%', '/' and '?' among them
};

constexpr bool is_alnum(unsigned c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
         (c >= 'A' && c <= 'Z');
}

constexpr std::array<std::uint8_t, 256> make_classes() {
  std::array<std::uint8_t, 256> classes{};
  auto add = [&](std::string_view chars, char_class kind) {
    for (unsigned char c : chars)
      classes[c] |= kind;
  };
  for (unsigned c = 0; c < 256; ++c) {
    if (is_alnum(c))
      classes[c] |= token_char | host_char | target_char;
    if (c == '\t' || (c >= 0x20 && c != 0x7f))
      classes[c] |= value_char;
  }
  add("!#$%&'*+-.^_`|~", token_char);
  add("-._", host_char);
  add("-._~!$&'()*+,;=:@%/?", target_char);
  return classes;
}

constexpr auto classes = make_classes();

bool all_of_class(std::string_view text, char_class kind) {
  return std::all_of(text.begin(), text.end(), [kind](unsigned char c) {
    return (classes[c] & kind) != 0;
  });
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

std::optional<unsigned> hex_digit(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  if (lower(c) >= 'a' && lower(c) <= 'f')
    return lower(c) - 'a' + 10u;
  return std::nullopt;
}

bool is_port(std::string_view text) {
  unsigned port = 0;
  auto end = text.data() + text.size();
  auto [last, failed] = std::from_chars(text.data(), end, port);
  return !text.empty() && text.size() <= 5 && last == end &&
         failed == std::errc{} && port <= 65535;
}

bool is_bracketed_address(std::string_view text) {
  constexpr std::size_t longest = 45; // an IPv4 address written as IPv6
  return text.size() >= 4 && text.size() <= longest + 2 &&
         text.front() == '[' && text.back() == ']' &&
         std::all_of(text.begin() + 1, text.end() - 1, [](char c) {
           return hex_digit(c) || c == ':' || c == '.';
         });
}

bool escapes_are_whole(std::string_view text) {
  for (std::size_t i = text.find('%'); i != text.npos;
       i = text.find('%', i + 3)) {
    if (text.size() - i < 3 || !hex_digit(text[i + 1]) ||
        !hex_digit(text[i + 2]))
      return false;
  }
  return true;
}

/// Cuts "http://" or "https://" off, if it is there.
bool cut_scheme(std::string_view& text) {
  for (std::string_view scheme : {"http://", "https://"}) {
    if (equal_ignoring_case(text.substr(0, scheme.size()), scheme)) {
      text.remove_prefix(scheme.size());
      return true;
    }
  }
  return false;
}

bool has_clean_segments(std::string_view path) {
  if (path.empty() || path.front() != '/')
    return false;
  while (!path.empty()) {
    path.remove_prefix(1);
    auto segment = path.substr(0, path.find('/'));
    path.remove_prefix(segment.size());
    if (segment == "." || segment == ".." || (segment.empty() && !path.empty()))
      return false;
  }
  return true;
}

} // namespace

bool is_token(std::string_view text) {
  return !text.empty() && all_of_class(text, token_char);
}

bool is_field_value(std::string_view text) {
  return all_of_class(text, value_char);
}

std::string_view trim(std::string_view text) {
  auto first = text.find_first_not_of(" \t");
  if (first == text.npos)
    return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(),
                    [](char x, char y) { return lower(x) == lower(y); });
}

bool lists_token(std::string_view value, std::string_view token) {
  while (!value.empty()) {
    auto item = value.substr(0, value.find(','));
    if (equal_ignoring_case(trim(item), token))
      return true;
    value.remove_prefix(std::min(value.size(), item.size() + 1));
  }
  return false;
}

bool is_host(std::string_view text) {
  auto bracket = text.rfind(']');
  auto colon = text.find(':', bracket == text.npos ? 0 : bracket);
  if (colon != text.npos && !is_port(text.substr(colon + 1)))
    return false;
  auto name = text.substr(0, colon);
  if (name.empty())
    return false;
  return all_of_class(name, host_char) || is_bracketed_address(name);
}

std::optional<field> parse_field(std::string_view line) {
  auto colon = line.find(':');
  if (colon == line.npos)
    return std::nullopt;
  field f{line.substr(0, colon), trim(line.substr(colon + 1))};
  if (!is_token(f.name) || !is_field_value(f.value))
    return std::nullopt;
  return f;
}

std::optional<std::uint64_t> parse_content_length(std::string_view value) {
  std::uint64_t length = 0;
  auto end = value.data() + value.size();
  auto [last, failed] = std::from_chars(value.data(), end, length);
  if (value.empty() || last != end || failed != std::errc{})
    return std::nullopt;
  return length;
}

std::optional<chunk_head> parse_chunk_head(std::string_view line) {
  chunk_head head;
  std::size_t digits = 0;
  for (; digits < line.size(); ++digits) {
    auto digit = hex_digit(line[digits]);
    if (!digit)
      break;
    if (digits == 16)
      return std::nullopt;
    head.size = head.size << 4 | *digit;
  }
  auto extension = line.substr(digits);
  if (digits == 0 || !is_field_value(extension) ||
      (!extension.empty() && extension.front() != ';'))
    return std::nullopt;
  head.extension_bytes = extension.size();
  return head;
}

std::optional<target> parse_target(std::string_view text) {
  target t;
  if (cut_scheme(text)) {
    t.authority = text.substr(0, text.find_first_of("/?"));
    text.remove_prefix(t.authority.size());
    if (!is_host(t.authority))
      return std::nullopt;
  } else if (text.empty() || text.front() != '/') {
    return std::nullopt;
  }
  if (!all_of_class(text, target_char) || !escapes_are_whole(text))
    return std::nullopt;
  auto question = text.find('?');
  t.path = text.substr(0, question);
  t.has_query = question != text.npos;
  if (t.has_query)
    t.query = text.substr(question + 1);
  return t;
}

std::optional<std::string> decode_path(std::string_view path) {
  if (path.empty())
    return "/";
  if (!escapes_are_whole(path))
    return std::nullopt;
  std::string decoded;
  decoded.reserve(path.size());
  for (std::size_t i = 0; i < path.size(); ++i) {
    unsigned byte = static_cast<unsigned char>(path[i]);
    if (byte == '%') {
      byte = *hex_digit(path[i + 1]) << 4 | *hex_digit(path[i + 2]);
      i += 2;
    }
    if (byte < 0x20 || byte == 0x7f)
      return std::nullopt;
    decoded.push_back(static_cast<char>(byte));
  }
  if (!has_clean_segments(decoded))
    return std::nullopt;
  return decoded;
}

} // namespace troupe::http
