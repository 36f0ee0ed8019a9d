#include "engine/text/character_sets.hpp"

#include "engine/text/unicode_forms.hpp"
#include "engine/text/utf8.hpp"

#include <algorithm>

namespace troupe::text {

namespace {

template <class Ranges>
bool holds(const Ranges& ranges, char32_t c) {
  auto range = std::lower_bound(
      ranges.begin(), ranges.end(), c,
      [](const auto& r, char32_t value) { return r.last < value; });
  return range != ranges.end() && c >= range->first;
}

void append_lowercase(char32_t c, std::string& out) {
  constexpr char32_t capital_i_with_dot = 0x130;
  if (c == capital_i_with_dot) {
    out += "i\u0307";
    return;
  }
  auto range = std::lower_bound(
      lowercase_ranges.begin(), lowercase_ranges.end(), c,
      [](const lowercase_range& r, char32_t value) { return r.last < value; });
  auto has_one = range != lowercase_ranges.end() && c >= range->first &&
                 (c - range->first) % range->step == 0;
  append_utf8(has_one ? c + static_cast<char32_t>(range->shift) : c, out);
}

void append_item(char32_t c, std::string& out) {
  if (c < 0x80)
    out += '\\';
  append_utf8(c, out);
}

} // namespace

bool is_white_space(char32_t c) {
  return holds(white_space, c);
}

bool is_combining_mark(char32_t c) {
  return c >= 0x300 && holds(combining_marks, c);
}

bool is_nonspacing_mark(char32_t c) {
  return c >= 0x300 && holds(nonspacing_marks, c);
}

bool is_bert_control(char32_t c) {
  return holds(bert_controls, c);
}

bool is_bert_ideograph(char32_t c) {
  return c >= 0x3400 && holds(bert_ideographs, c);
}

std::string_view last_character(std::string_view text) {
  auto size = std::min<std::size_t>(text.size(), 1);
  while (size < text.size() &&
         (static_cast<unsigned char>(text[text.size() - size]) & 0xC0) == 0x80)
    ++size;
  return text.substr(text.size() - size);
}

std::size_t spaces_at_start(std::string_view text) {
  auto rest = text;
  while (!rest.empty()) {
    auto size = first_utf8_unit(rest).size;
    if (!is_white_space(decode_utf8(rest.substr(0, size))))
      break;
    rest.remove_prefix(size);
  }
  return text.size() - rest.size();
}

std::size_t spaces_at_end(std::string_view text) {
  auto rest = text;
  while (!rest.empty()) {
    auto last = last_character(rest);
    if (!is_white_space(decode_utf8(last)))
      break;
    rest.remove_suffix(last.size());
  }
  return text.size() - rest.size();
}

std::string to_lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    auto size = first_utf8_unit(text).size;
    append_lowercase(decode_utf8(text.substr(0, size)), out);
    text.remove_prefix(size);
  }
  return out;
}

const std::string& punctuation_pattern() {
  static const std::string pattern = [] {
    std::string out{"["};
    for (const auto& range : punctuation) {
      append_item(range.first, out);
      if (range.last == range.first)
        continue;
      if (range.last > range.first + 1)
        out += '-';
      append_item(range.last, out);
    }
    return out + "]";
  }();
  return pattern;
}

} // namespace troupe::text
