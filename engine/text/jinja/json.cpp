#include "engine/text/jinja/json.hpp"

#include "engine/text/utf8.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::text::jinja {

namespace {

std::string unit_escape(char32_t unit) {
  constexpr std::string_view hex = "0123456789abcdef";
  return {'\\',
          'u',
          hex[(unit >> 12) & 15],
          hex[(unit >> 8) & 15],
          hex[(unit >> 4) & 15],
          hex[unit & 15]};
}

/// A character past ASCII as one or two UTF-16 units.
std::string ascii_escape(std::string_view character) {
  if (!is_utf8(character))
    return unit_escape(0xFFFD);
  auto c = decode_utf8(character);
  if (c < 0x10000)
    return unit_escape(c);
  return unit_escape(0xD800 + ((c - 0x10000) >> 10)) +
         unit_escape(0xDC00 + ((c - 0x10000) & 0x3FF));
}

void append_text(const marked_string& text, bool ascii, marked_string& out) {
  out.append("\"", false);
  std::size_t size = 1;
  for (std::size_t i = 0; i < text.size(); i += size) {
    size = character_size(text.text(), i);
    auto c = text.text()[i];
    auto byte = static_cast<unsigned char>(c);
    constexpr std::string_view special = "\"\\\n\r\t\b\f";
    constexpr std::string_view letters = "\"\\nrtbf";
    auto character = std::string_view{text.text()}.substr(i, size);
    if (auto at = special.find(c); at != std::string_view::npos)
      out.append_like(std::string{'\\', letters[at]}, text, i);
    else if (byte < ' ' || (ascii && byte == 127))
      out.append_like(unit_escape(byte), text, i);
    else if (ascii && byte >= 128)
      out.append_like(ascii_escape(character), text, i);
    else
      out.append(text.slice(i, size));
  }
  out.append("\"", false);
}

class printer {
public:
  printer(meter& cost, const json_layout& layout)
      : cost_(cost), layout_(layout) {
    // nop
  }

  void print(const runtime_value& v, int level);
  marked_string out;

private:
  void separate(bool first, int level) {
    if (!first)
      out.append(layout_.item_separator);
    new_line(level);
    cost_.check_bytes(out.size());
  }

  void new_line(int level) {
    if (layout_.indent >= 0)
      out.append(
          "\n" + std::string(static_cast<std::size_t>(layout_.indent * level),
                             ' '),
          false);
  }

  void print_map(const dict& map, int level);
  void print_list(const list& items, int level);

  meter& cost_;
  const json_layout& layout_;
};

/// Python writes keys that are no texts as they print in JSON.
marked_string key_text(meter& cost, const runtime_value& key) {
  if (const auto* text = key.text())
    return *text;
  if (!key.number() && !key.is_none())
    fail("a key of kind " + std::string{kind_of(key)} +
         " cannot be written as JSON");
  static const json_layout plain;
  printer inner{cost, plain};
  inner.print(key, 0);
  return std::move(inner.out);
}

void printer::print_map(const dict& map, int level) {
  if (map.entries.empty()) {
    out.append("{}", false);
    return;
  }
  std::vector<const std::pair<runtime_value, runtime_value>*> entries;
  for (const auto& entry : map.entries)
    entries.push_back(&entry);
  if (layout_.sort_keys)
    std::stable_sort(entries.begin(), entries.end(),
                     [](auto* a, auto* b) { return less(a->first, b->first); });
  out.append("{", false);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    separate(i == 0, level + 1);
    append_text(key_text(cost_, entries[i]->first), layout_.ascii, out);
    out.append(layout_.key_separator);
    print(entries[i]->second, level + 1);
  }
  new_line(level);
  out.append("}", false);
}

void printer::print_list(const list& items, int level) {
  if (items.empty()) {
    out.append("[]", false);
    return;
  }
  out.append("[", false);
  for (std::size_t i = 0; i < items.size(); ++i) {
    separate(i == 0, level + 1);
    print(items[i], level + 1);
  }
  new_line(level);
  out.append("]", false);
}

void printer::print(const runtime_value& v, int level) {
  if (v.is_none())
    out.append("null", false);
  else if (const auto* b = v.get<bool>())
    out.append(*b ? "true" : "false", false);
  else if (const auto* i = v.get<std::int64_t>())
    out.append(std::to_string(*i), false);
  else if (const auto* d = v.get<double>())
    out.append(std::isnan(*d)   ? "NaN"
               : std::isinf(*d) ? *d < 0 ? "-Infinity" : "Infinity"
                                : float_text(*d),
               false);
  else if (const auto* text = v.text())
    append_text(*text, layout_.ascii, out);
  else if (const auto* map = v.map())
    print_map(*map, level);
  else if (const auto* items = v.items())
    print_list(*items, level);
  else
    fail("a value of kind " + std::string{kind_of(v)} +
         " cannot be written as JSON");
}

} // namespace

marked_string to_json(meter& cost, const runtime_value& v,
                      const json_layout& layout) {
  cost.check_bytes(weight_of(v));
  cost.spend(weight_of(v) / 16);
  printer all{cost, layout};
  all.print(v, 0);
  cost.check_bytes(all.out.size());
  return std::move(all.out);
}

} // namespace troupe::text::jinja
