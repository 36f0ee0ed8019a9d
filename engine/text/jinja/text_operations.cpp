#include "engine/text/jinja/text_operations.hpp"

#include "engine/text/character_sets.hpp"
#include "engine/text/jinja/case_forms.hpp"
#include "engine/text/split_pattern.hpp"
#include "engine/text/utf8.hpp"

#include <algorithm>
#include <array>

namespace troupe::text::jinja {

namespace {

/// Calls `f` with the place and the bytes of every character.
template <class F>
void each_character(const marked_string& text, F f) {
  std::string_view bytes = text.text();
  for (std::size_t at = 0, size = 0; at < bytes.size(); at += size) {
    size = character_size(bytes, at);
    f(at, bytes.substr(at, size));
  }
}

/// Every character by what `f` makes of it.
template <class F>
marked_string mapped(const marked_string& text, F f) {
  marked_string out;
  each_character(text, [&](std::size_t at, std::string_view c) {
    out.append_like(f(at, c), text, at);
  });
  return std::move(out).as_markup(text.is_markup());
}

bool has_case(std::string_view c) {
  return lower_form(c) != c || upper_form_of(c) != c;
}

constexpr std::string_view sigma = "Σ";

/// Small sigma has a form of its own at the end of a word.
std::string lower_in(const marked_string& text, std::size_t at,
                     std::string_view c) {
  if (c != sigma)
    return lower_form(c);
  std::string_view bytes = text.text();
  auto before = last_character(bytes.substr(0, at));
  auto next = at + c.size();
  auto inside = next < bytes.size() &&
                has_case(bytes.substr(next, character_size(bytes, next)));
  return !before.empty() && has_case(before) && !inside ? "ς" : "σ";
}

/// A capital of several characters is one at the beginning only.
std::string title_form(std::string_view c) {
  auto out = upper_form_of(c);
  auto first = character_size(out, 0);
  return out.substr(0, first) + lower(marked_string{out.substr(first)}).text();
}

bool is_space(std::string_view c) {
  if (c.size() == 1) {
    auto byte = static_cast<unsigned char>(c[0]);
    return byte == ' ' || (byte >= 9 && byte <= 13) ||
           (byte >= 0x1C && byte <= 0x1F);
  }
  return is_utf8(c) && is_white_space(decode_utf8(c));
}

/// Bytes of the line end at `at`; 0: there is none.
std::size_t line_end_size(std::string_view bytes, std::size_t at) {
  auto c = static_cast<unsigned char>(bytes[at]);
  if (c == '\r')
    return bytes.substr(at, 2) == "\r\n" ? 2 : 1;
  if ((c >= '\n' && c <= '\f') || (c >= 0x1C && c <= 0x1E))
    return 1;
  for (std::string_view end : {"\u0085", "\u2028", "\u2029"})
    if (bytes.substr(at, end.size()) == end)
      return end.size();
  return 0;
}

} // namespace

std::size_t count_characters(std::string_view text) {
  std::size_t out = 0;
  for (std::size_t at = 0; at < text.size(); at += character_size(text, at))
    ++out;
  return out;
}

marked_string lower(const marked_string& text) {
  return mapped(text, [&](std::size_t at, std::string_view c) {
    return lower_in(text, at, c);
  });
}

marked_string upper(const marked_string& text) {
  return mapped(
      text, [](std::size_t, std::string_view c) { return upper_form_of(c); });
}

marked_string capitalize(const marked_string& text) {
  return mapped(text, [&](std::size_t at, std::string_view c) {
    return at == 0 ? title_form(c) : lower_in(text, at, c);
  });
}

marked_string swap_case(const marked_string& text) {
  return mapped(text, [&](std::size_t at, std::string_view c) {
    auto small = lower_in(text, at, c);
    return small != c ? small : upper_form_of(c);
  });
}

marked_string title(const marked_string& text) {
  auto inside = false;
  return mapped(text, [&](std::size_t at, std::string_view c) {
    auto out = inside ? lower_in(text, at, c) : title_form(c);
    inside = has_case(c);
    return out;
  });
}

marked_string title_of_words(const marked_string& text) {
  constexpr std::string_view brackets = "-({[<";
  auto inside = false;
  auto out = mapped(text, [&](std::size_t at, std::string_view c) {
    auto form = inside ? lower_in(text, at, c) : upper_form_of(c);
    inside = !is_space(c) && brackets.find(c) == std::string_view::npos;
    return form;
  });
  return std::move(out).as_markup(false);
}

bool is_lower(const marked_string& text) {
  return lower(text).text() == text.text() && upper(text).text() != text.text();
}

bool is_upper(const marked_string& text) {
  return upper(text).text() == text.text() && lower(text).text() != text.text();
}

bool is_title(const marked_string& text) {
  return title(text).text() == text.text() &&
         (lower(text).text() != text.text() ||
          upper(text).text() != text.text());
}

marked_string strip(const marked_string& text, const std::string* set,
                    bool left, bool right) {
  auto goes = [&](std::string_view c) {
    if (set == nullptr)
      return is_space(c);
    for (std::size_t at = 0; at < set->size();) {
      auto size = character_size(*set, at);
      if (std::string_view{*set}.substr(at, size) == c)
        return true;
      at += size;
    }
    return false;
  };
  std::string_view bytes = text.text();
  std::size_t from = 0;
  auto to = bytes.size();
  while (left && from < to) {
    auto size = character_size(bytes, from);
    if (!goes(bytes.substr(from, size)))
      break;
    from += size;
  }
  while (right && to > from) {
    auto last = last_character(bytes.substr(from, to - from));
    if (!goes(last))
      break;
    to -= last.size();
  }
  return text.slice(from, to - from);
}

marked_string pad(meter& cost, const marked_string& text, std::int64_t width,
                  const marked_string& fill, side where) {
  if (count_characters(fill.text()) != 1)
    fail("what fills a text up must be one character");
  auto size = static_cast<std::int64_t>(count_characters(text.text()));
  if (width <= size)
    return text;
  auto missing = static_cast<std::size_t>(width - size);
  cost.check_bytes(text.size() + missing);
  cost.check_bytes(text.size() + missing * fill.size());
  cost.spend(missing / 64);
  auto odd = missing & 1 & static_cast<std::size_t>(width);
  auto left = where == side::left     ? 0
              : where == side::right  ? missing
              : where == side::middle ? missing / 2
                                      : missing / 2 + odd;
  marked_string out;
  for (std::size_t i = 0; i < left; ++i)
    out.append(fill);
  out.append(text);
  for (auto i = left; i < missing; ++i)
    out.append(fill);
  return std::move(out).as_markup(text.is_markup());
}

marked_string zero_fill(meter& cost, const marked_string& text,
                        std::int64_t width) {
  auto has_sign = text.text().starts_with('-') || text.text().starts_with('+');
  std::size_t sign = has_sign ? 1 : 0;
  auto rest =
      pad(cost, text.slice(sign), width - static_cast<std::int64_t>(sign),
          marked_string{"0"}, side::right);
  auto out = text.slice(0, sign);
  out.append(rest);
  return out;
}

marked_string first_characters(const marked_string& text, std::size_t count) {
  std::size_t at = 0;
  while (count-- > 0 && at < text.size())
    at += character_size(text.text(), at);
  return text.slice(0, at);
}

marked_string replace(meter& cost, const marked_string& text,
                      const marked_string& from, const marked_string& to,
                      std::int64_t count) {
  marked_string out;
  std::size_t at = 0;
  auto add = [&](const marked_string& part) {
    cost.check_bytes(out.size() + part.size());
    out.append(part);
  };
  cost.spend(text.size() / 64);
  if (from.empty()) {
    for (const auto& c : characters(text)) {
      if (count-- != 0)
        add(to);
      add(c);
    }
    if (count != 0)
      add(to);
    return std::move(out).as_markup(text.is_markup());
  }
  while (count-- != 0) {
    auto found = text.text().find(from.text(), at);
    if (found == std::string::npos)
      break;
    add(text.slice(at, found - at));
    add(to);
    at = found + from.size();
  }
  add(text.slice(at));
  return std::move(out).as_markup(text.is_markup());
}

namespace {

/// The words between white space.
list split_by_spaces(meter& cost, const marked_string& text, std::int64_t most,
                     bool from_right) {
  std::vector<std::pair<std::size_t, std::size_t>> words;
  auto inside = false;
  each_character(text, [&](std::size_t at, std::string_view c) {
    auto space = is_space(c);
    if (!space && !inside)
      words.emplace_back(at, at);
    if (!space)
      words.back().second = at + c.size();
    inside = !space;
  });
  cost.spend(words.size() + text.size() / 64);
  // What is over stays whole, with the white space at its outer end.
  if (most >= 0 && words.size() > static_cast<std::size_t>(most)) {
    auto kept = static_cast<std::ptrdiff_t>(most);
    if (from_right) {
      words.erase(words.begin(), words.end() - kept - 1);
      words.front().first = 0;
    } else {
      words.erase(words.begin() + kept + 1, words.end());
      words.back().second = text.size();
    }
  }
  list out;
  for (auto [from, to] : words)
    out.push_back(make_text(text.slice(from, to - from)));
  return out;
}

} // namespace

list split(meter& cost, const marked_string& text,
           const marked_string* separator, std::int64_t most, bool from_right) {
  if (separator == nullptr)
    return split_by_spaces(cost, text, most, from_right);
  if (separator->empty())
    fail("split by an empty text");
  const auto& bytes = text.text();
  const auto& by = separator->text();
  std::vector<std::size_t> cuts;
  auto limit = most < 0 ? bytes.size() : static_cast<std::size_t>(most);
  if (from_right) {
    for (auto at = bytes.size(); cuts.size() < limit && at >= by.size();) {
      auto found = bytes.rfind(by, at - by.size());
      if (found == std::string::npos)
        break;
      cuts.insert(cuts.end(), found);
      at = found;
    }
    std::reverse(cuts.begin(), cuts.end());
  } else {
    for (auto at = bytes.find(by);
         at != std::string::npos && cuts.size() < limit;
         at = bytes.find(by, at + by.size()))
      cuts.push_back(at);
  }
  cost.spend(cuts.size() + bytes.size() / 64);
  list out;
  std::size_t from = 0;
  for (auto cut : cuts) {
    out.push_back(make_text(text.slice(from, cut - from)));
    from = cut + by.size();
  }
  out.push_back(make_text(text.slice(from)));
  return out;
}

list split_lines(meter& cost, const marked_string& text, bool keep_ends) {
  list out;
  const auto& bytes = text.text();
  std::size_t from = 0;
  for (std::size_t at = 0; at < bytes.size();) {
    auto end = line_end_size(bytes, at);
    if (end == 0) {
      at += character_size(bytes, at);
      continue;
    }
    out.push_back(
        make_text(text.slice(from, at - from + (keep_ends ? end : 0))));
    at += end;
    from = at;
  }
  if (from < bytes.size())
    out.push_back(make_text(text.slice(from)));
  cost.spend(out.size() + bytes.size() / 64);
  return out;
}

list partition(const marked_string& text, const marked_string& separator,
               bool from_right) {
  if (separator.empty())
    fail("partition by an empty text");
  auto at = from_right ? text.text().rfind(separator.text())
                       : text.text().find(separator.text());
  auto nothing = text.slice(0, 0);
  if (at == std::string::npos)
    return from_right
               ? list{make_text(nothing), make_text(nothing), make_text(text)}
               : list{make_text(text), make_text(nothing), make_text(nothing)};
  return {make_text(text.slice(0, at)),
          make_text(text.slice(at, separator.size())),
          make_text(text.slice(at + separator.size()))};
}

std::int64_t find_text(const marked_string& text, const marked_string& part,
                       bool last) {
  auto at =
      last ? text.text().rfind(part.text()) : text.text().find(part.text());
  if (at == std::string::npos)
    return -1;
  return static_cast<std::int64_t>(
      count_characters(std::string_view{text.text()}.substr(0, at)));
}

std::int64_t count_text(const marked_string& text, const marked_string& part) {
  if (part.empty())
    return static_cast<std::int64_t>(count_characters(text.text())) + 1;
  std::int64_t out = 0;
  for (auto at = text.text().find(part.text()); at != std::string::npos;
       at = text.text().find(part.text(), at + part.size()))
    ++out;
  return out;
}

marked_string joined(meter& cost, const list& items, const marked_string& by,
                     bool escaping) {
  marked_string out;
  auto first = true;
  for (const auto& item : items) {
    cost.spend(1);
    if (!first)
      out.append(by);
    first = false;
    auto text = printed(cost, item);
    out.append(escaping ? escaped(cost, text) : text);
    cost.check_bytes(out.size());
  }
  return out;
}

marked_string escaped(meter& cost, const marked_string& text) {
  if (text.is_markup())
    return text;
  marked_string out;
  constexpr std::string_view special = "&<>'\"";
  constexpr std::array<std::string_view, 5> references{"&amp;", "&lt;", "&gt;",
                                                       "&#39;", "&#34;"};
  cost.spend(text.size() / 64);
  const auto& bytes = text.text();
  std::size_t from = 0;
  for (auto at = bytes.find_first_of(special); at != std::string::npos;
       at = bytes.find_first_of(special, from)) {
    out.append(text.slice(from, at - from));
    out.append_like(references[special.find(bytes[at])], text, at);
    cost.check_bytes(out.size());
    from = at + 1;
  }
  out.append(text.slice(from));
  return std::move(out).as_markup(true);
}

marked_string concatenate(meter& cost, const marked_string& a,
                          const marked_string& b) {
  cost.check_bytes(a.size() + b.size());
  cost.spend((a.size() + b.size()) / 64);
  auto out = a;
  out.append(b);
  return out;
}

std::shared_ptr<const list> iterate(meter& cost, const runtime_value& v) {
  if (const auto* text = v.text())
    cost.spend(text->size() / 2);
  return iterate(v);
}

marked_string printed(meter& cost, const runtime_value& v) {
  auto size = weight_of(v);
  cost.check_bytes(size);
  cost.spend(size / 64);
  return printed(v);
}

namespace {

split_pattern compiled(std::string_view pattern) {
  auto made = split_pattern::compile(pattern);
  return std::move(*made);
}

/// Finds what is not of a kind.
const split_pattern& others(character_kind kind) {
  static const split_pattern letter = compiled("[^\\p{L}]");
  static const split_pattern digit = compiled("[^\\p{Nd}²³¹⁰⁴-⁹₀-₉]");
  static const split_pattern decimal = compiled("[^\\p{Nd}]");
  static const split_pattern numeric = compiled("[^\\p{N}]");
  static const split_pattern word = compiled("[^\\p{L}\\p{N}]");
  switch (kind) {
  case character_kind::letter:
    return letter;
  case character_kind::digit:
    return digit;
  case character_kind::decimal:
    return decimal;
  case character_kind::numeric:
    return numeric;
  default:
    return word;
  }
}

} // namespace

bool all_of_kind(const marked_string& text, character_kind kind) {
  if (text.empty() || !is_utf8(text.text()))
    return false;
  if (kind == character_kind::space)
    return strip(text, nullptr, true, false).empty();
  match_scratch scratch;
  return !others(kind).find(text.text(), 0, scratch);
}

std::int64_t count_words(const marked_string& text) {
  static const split_pattern word = compiled("[\\p{L}\\p{N}_]+");
  if (!is_utf8(text.text()))
    fail("wordcount needs valid text");
  match_scratch scratch;
  std::int64_t out = 0;
  for (auto found = word.find(text.text(), 0, scratch); found;
       found = word.find(text.text(), found->second, scratch))
    ++out;
  return out;
}

} // namespace troupe::text::jinja
