#include "config/schema.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <fmt/format.h>

namespace troupe::config {

namespace {

bool digit(char c) {
  return c >= '0' && c <= '9';
}

/// The end of the digits at the front of `text`.
std::size_t digits(std::string_view text) {
  std::size_t n = 0;
  while (n < text.size() && digit(text[n]))
    ++n;
  return n;
}

/// A number of JSON's grammar that every reader can hold.
bool is_json_number(std::string_view text) {
  double value = 0;
  const auto* end = text.data() + text.size();
  auto read = std::from_chars(text.data(), end, value);
  if (read.ec != std::errc{} || read.ptr != end || !std::isfinite(value))
    return false;
  auto left = text;
  if (left.starts_with('-'))
    left.remove_prefix(1);
  auto whole = digits(left);
  if (whole == 0 || (whole > 1 && left.front() == '0'))
    return false;
  left.remove_prefix(whole);
  if (left.empty()) {
    std::int64_t integer = 0;
    return std::from_chars(text.data(), end, integer).ec == std::errc{};
  }
  if (left.front() == '.') {
    left.remove_prefix(1);
    auto fraction = digits(left);
    if (fraction == 0)
      return false;
    left.remove_prefix(fraction);
  }
  // from_chars has read the exponent, if there is one.
  return left.empty() || left.front() == 'e' || left.front() == 'E';
}

void write_text(std::string_view text, std::string& out) {
  out += '"';
  for (unsigned char c : text) {
    if (c == '"' || c == '\\')
      out += '\\';
    if (c < ' ')
      out += fmt::format("\\u{:04x}", c);
    else
      out += static_cast<char>(c);
  }
  out += '"';
}

void write_scalar(const YAML::Node& node, std::string& out) {
  const auto& text = node.Scalar();
  auto plain = node.Tag() != "!";
  if (plain && (text == "true" || text == "false" || is_json_number(text)))
    out += text;
  else
    write_text(text, out);
}

void write(const YAML::Node& node, std::string& out) {
  auto comma = false;
  auto separate = [&] {
    if (comma)
      out += ',';
    comma = true;
  };
  switch (node.Type()) {
  case YAML::NodeType::Map:
    out += '{';
    for (const auto& entry : node) {
      separate();
      write_text(entry.first.Scalar(), out);
      out += ':';
      write(entry.second, out);
    }
    out += '}';
    return;
  case YAML::NodeType::Sequence:
    out += '[';
    for (const auto& element : node) {
      separate();
      write(element, out);
    }
    out += ']';
    return;
  case YAML::NodeType::Scalar:
    return write_scalar(node, out);
  default:
    out += "null";
  }
}

/// A key without quotes where YAML needs none.
void write_key(const std::string& name, std::string& out) {
  auto simple = !name.empty() && !digit(name.front()) &&
                std::all_of(name.begin(), name.end(), [](unsigned char c) {
                  return std::isalnum(c) || c == '_';
                });
  if (simple)
    out += name;
  else
    write_text(name, out);
  out += ':';
}

bool is_branch(const YAML::Node& node) {
  return (node.IsMap() || node.IsSequence()) && node.size() > 0;
}

/// Writes the entries of a map or a list, each on a line of its own behind
/// `margin` spaces, but for the first, which stands where the writer is.
void write_block(const YAML::Node& node, std::size_t margin, std::string& out) {
  constexpr std::size_t step = 2;
  auto first = true;
  auto begin_line = [&] {
    if (!first)
      out.append(margin, ' ');
    first = false;
  };
  if (node.IsSequence())
    for (const auto& element : node) {
      begin_line();
      out += "- ";
      if (is_branch(element)) {
        write_block(element, margin + step, out);
      } else {
        write(element, out);
        out += '\n';
      }
    }
  else
    for (const auto& entry : node) {
      begin_line();
      write_key(entry.first.Scalar(), out);
      if (is_branch(entry.second)) {
        out += '\n';
        out.append(margin + step, ' ');
        write_block(entry.second, margin + step, out);
      } else {
        out += ' ';
        write(entry.second, out);
        out += '\n';
      }
    }
}

/// The number of the escape \uXXXX at `at`; nothing if there is none.
std::optional<std::uint32_t> escape_at(const std::string& text,
                                       std::size_t at) {
  constexpr std::size_t length = 6;
  if (at + length > text.size() || text[at] != '\\' || text[at + 1] != 'u')
    return std::nullopt;
  std::uint32_t out = 0;
  const auto* begin = text.data() + at + 2;
  auto read = std::from_chars(begin, begin + 4, out, 16);
  if (read.ec != std::errc{} || read.ptr != begin + 4)
    return std::nullopt;
  return out;
}

void append_utf8(std::uint32_t character, std::string& out) {
  out += static_cast<char>(0xF0 | character >> 18);
  out += static_cast<char>(0x80 | (character >> 12 & 0x3F));
  out += static_cast<char>(0x80 | (character >> 6 & 0x3F));
  out += static_cast<char>(0x80 | (character & 0x3F));
}

} // namespace

std::string to_json(const YAML::Node& document) {
  std::string out;
  write(document, out);
  return out;
}

std::string to_yaml(const std::string& json) {
  try {
    auto document = YAML::Load(whole_characters(json));
    std::string out;
    if (is_branch(document)) {
      write_block(document, 0, out);
    } else {
      write(document, out);
      out += '\n';
    }
    return out;
  } catch (const YAML::Exception&) {
    return json;
  }
}

std::string whole_characters(const std::string& json) {
  std::string out;
  out.reserve(json.size());
  for (std::size_t i = 0; i < json.size();) {
    auto high = escape_at(json, i);
    auto low = high ? escape_at(json, i + 6) : std::nullopt;
    if (high && low && *high >> 10 == 0x36 && *low >> 10 == 0x37) {
      append_utf8(0x10000 + ((*high & 0x3FF) << 10) + (*low & 0x3FF), out);
      i += 12;
      continue;
    }
    // A backslash and what it escapes go over together.
    std::size_t taken = json[i] == '\\' && i + 1 < json.size() ? 2 : 1;
    out.append(json, i, taken);
    i += taken;
  }
  return out;
}

} // namespace troupe::config
