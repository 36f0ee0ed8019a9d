#include "router/api/json_writer.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace troupe::api {

namespace {

constexpr std::string_view replacement = "\xef\xbf\xbd";
constexpr float shown_for_infinity = -9999.0f;

/// What a lead byte promises: the length of its sequence and the range of the
/// byte after it, which rules out overlong forms and surrogates.
struct sequence {
  std::size_t length;
  unsigned char second_low, second_high;
};

sequence sequence_of(unsigned char lead) {
  if (lead >= 0xc2 && lead <= 0xdf)
    return {2, 0x80, 0xbf};
  if (lead == 0xe0)
    return {3, 0xa0, 0xbf};
  if (lead == 0xed)
    return {3, 0x80, 0x9f};
  if (lead >= 0xe1 && lead <= 0xef)
    return {3, 0x80, 0xbf};
  if (lead == 0xf0)
    return {4, 0x90, 0xbf};
  if (lead >= 0xf1 && lead <= 0xf3)
    return {4, 0x80, 0xbf};
  if (lead == 0xf4)
    return {4, 0x80, 0x8f};
  return {1, 1, 0};
}

/// How many bytes at the front of `text` follow the lead byte's promise.
std::size_t matching_bytes(std::string_view text, const sequence& promised) {
  std::size_t i = 1;
  for (; i < promised.length && i < text.size(); ++i) {
    auto byte = static_cast<unsigned char>(text[i]);
    auto low = i == 1 ? promised.second_low : 0x80;
    auto high = i == 1 ? promised.second_high : 0xbf;
    if (byte < low || byte > high)
      break;
  }
  return i;
}

/// Appends one character of more than one byte, or U+FFFD for the longest
/// beginning of one; returns how many bytes of `text` it took.
std::size_t append_wide(std::string& out, std::string_view text) {
  auto promised = sequence_of(static_cast<unsigned char>(text[0]));
  auto bytes = matching_bytes(text, promised);
  bool whole = promised.length > 1 && bytes == promised.length;
  out += whole ? text.substr(0, bytes) : replacement;
  return bytes;
}

void append_escape(std::string& out, char c) {
  constexpr std::string_view hex = "0123456789abcdef";
  constexpr std::string_view named = "\b\f\n\r\t\"\\";
  constexpr std::string_view names = "bfnrt\"\\";
  out += '\\';
  if (auto i = named.find(c); i != named.npos) {
    out += names[i];
    return;
  }
  out += "u00";
  out += hex[static_cast<unsigned char>(c) >> 4];
  out += hex[c & 15];
}

bool is_plain(char c) {
  auto byte = static_cast<unsigned char>(c);
  return byte >= 0x20 && byte < 0x7f && c != '"' && c != '\\';
}

std::size_t plain_run(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size() && is_plain(text[i]))
    ++i;
  return i;
}

void append_string(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    auto run = plain_run(text);
    out += text.substr(0, run);
    text.remove_prefix(run);
    if (text.empty())
      break;
    if (static_cast<unsigned char>(text[0]) >= 0x80) {
      text.remove_prefix(append_wide(out, text));
    } else {
      append_escape(out, text[0]);
      text.remove_prefix(1);
    }
  }
  out += '"';
}

template <class Number>
void append_number(std::string& out, Number value) {
  std::array<char, 32> digits;
  auto end =
      std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

} // namespace

std::string repaired_utf8(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    bool wide = static_cast<unsigned char>(text[0]) >= 0x80;
    if (!wide)
      out += text[0];
    text.remove_prefix(wide ? append_wide(out, text) : 1);
  }
  return out;
}

void json_writer::separate() {
  if (comma_)
    out_ += ',';
  comma_ = true;
}

json_writer& json_writer::open(char bracket) {
  separate();
  out_ += bracket;
  comma_ = false;
  return *this;
}

json_writer& json_writer::close(char bracket) {
  out_ += bracket;
  comma_ = true;
  return *this;
}

json_writer& json_writer::begin_object() {
  return open('{');
}

json_writer& json_writer::end_object() {
  return close('}');
}

json_writer& json_writer::begin_array() {
  return open('[');
}

json_writer& json_writer::end_array() {
  return close(']');
}

json_writer& json_writer::key(std::string_view name) {
  text(name);
  out_ += ':';
  comma_ = false;
  return *this;
}

json_writer& json_writer::text(std::string_view value) {
  separate();
  append_string(out_, value);
  return *this;
}

json_writer& json_writer::integer(std::int64_t value) {
  separate();
  append_number(out_, value);
  return *this;
}

json_writer& json_writer::natural(std::uint64_t value) {
  separate();
  append_number(out_, value);
  return *this;
}

json_writer& json_writer::real(float value) {
  separate();
  auto begin = out_.size();
  append_number(out_, std::isfinite(value) ? value : shown_for_infinity);
  if (out_.find_first_of(".e", begin) == out_.npos)
    out_ += ".0";
  return *this;
}

json_writer& json_writer::json(std::string_view value) {
  separate();
  out_ += value;
  comma_ = true;
  return *this;
}

json_writer& json_writer::null() {
  separate();
  out_ += "null";
  return *this;
}

json_writer& json_writer::text_or_null(std::string_view value) {
  return value.empty() ? null() : text(value);
}

std::string json_writer::take(std::string_view suffix) {
  out_ += suffix;
  comma_ = false;
  return std::exchange(out_, {});
}

} // namespace troupe::api
