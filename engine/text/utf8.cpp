#include "engine/text/utf8.hpp"

#include <simdjson.h>

namespace troupe::text {

namespace {

struct lead_rule {
  std::size_t size = 0; ///< 0: never starts a character
  unsigned char second_min = 0x80;
  unsigned char second_max = 0xBF;
};

// The well-formed sequences of the Unicode standard, by their first byte.
lead_rule rule_of(unsigned char lead) {
  if (lead < 0x80)
    return {1};
  if (lead < 0xC2)
    return {};
  if (lead < 0xE0)
    return {2};
  if (lead == 0xE0)
    return {3, 0xA0, 0xBF};
  if (lead == 0xED)
    return {3, 0x80, 0x9F};
  if (lead < 0xF0)
    return {3};
  if (lead == 0xF0)
    return {4, 0x90, 0xBF};
  if (lead < 0xF4)
    return {4};
  if (lead == 0xF4)
    return {4, 0x80, 0x8F};
  return {};
}

} // namespace

utf8_unit first_utf8_unit(std::string_view bytes) {
  using kind = utf8_unit::kind;
  auto rule = rule_of(static_cast<unsigned char>(bytes[0]));
  if (rule.size == 0)
    return {kind::invalid, 1};
  for (std::size_t i = 1; i < rule.size; ++i) {
    if (i == bytes.size())
      return {kind::incomplete, i};
    auto byte = static_cast<unsigned char>(bytes[i]);
    auto low = i == 1 ? rule.second_min : 0x80;
    auto high = i == 1 ? rule.second_max : 0xBF;
    if (byte < low || byte > high)
      return {kind::invalid, i};
  }
  return {kind::character, rule.size};
}

bool is_utf8(std::string_view bytes) {
  return simdjson::validate_utf8(bytes);
}

void append_replaced(std::string_view bytes, std::string& out) {
  if (is_utf8(bytes)) {
    out += bytes;
    return;
  }
  while (!bytes.empty()) {
    auto unit = first_utf8_unit(bytes);
    out += unit.what == utf8_unit::kind::character ? bytes.substr(0, unit.size)
                                                   : replacement_character;
    bytes.remove_prefix(unit.size);
  }
}

void append_utf8(char32_t c, std::string& out) {
  auto put = [&](char32_t byte) { out += static_cast<char>(byte); };
  auto put_tail = [&](int shift) { put(0x80 | ((c >> shift) & 0x3F)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | (c >> 6));
    put_tail(0);
  } else if (c < 0x10000) {
    put(0xE0 | (c >> 12));
    put_tail(6);
    put_tail(0);
  } else {
    put(0xF0 | (c >> 18));
    put_tail(12);
    put_tail(6);
    put_tail(0);
  }
}

char32_t decode_utf8(std::string_view character) {
  auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(character[i]));
  };
  switch (character.size()) {
  case 1:
    return byte(0);
  case 2:
    return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
  case 3:
    return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
  default:
    return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 |
           (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  }
}

} // namespace troupe::text
