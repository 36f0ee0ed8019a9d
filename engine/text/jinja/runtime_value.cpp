#include "engine/text/jinja/runtime_value.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

namespace troupe::text::jinja {

void fail(std::string message) {
  throw render_error{errc::invalid_argument, std::move(message)};
}

runtime_value make_text(marked_string text) {
  return std::make_shared<const marked_string>(std::move(text));
}

runtime_value make_text(std::string_view text) {
  return make_text(marked_string{text});
}

std::size_t depth_inside(const runtime_value& v) {
  std::size_t depth = 0;
  if (const auto* items = v.items())
    depth = items->depth;
  else if (const auto* map = v.map())
    depth = map->depth;
  else if (v.name_space() || v.loop())
    fail("a " + std::string{kind_of(v)} + " cannot be put into another value");
  if (depth >= value_depth_max)
    throw render_error{errc::limit, "a value is nested too deeply"};
  return depth;
}

runtime_value make_list(list items) {
  for (const auto& item : items)
    items.depth = std::max(items.depth, depth_inside(item) + 1);
  return std::make_shared<const list>(std::move(items));
}

runtime_value make_tuple(list items) {
  items.tuple = true;
  return make_list(std::move(items));
}

runtime_value make_dict(dict entries) {
  for (const auto& [key, item] : entries.entries)
    entries.depth = std::max(entries.depth, depth_inside(item) + 1);
  return std::make_shared<const dict>(std::move(entries));
}

runtime_value to_runtime(const value& from, std::size_t depth) {
  if (depth > value_depth_max)
    throw render_error{errc::limit, "a value is nested too deeply"};
  struct converter {
    std::size_t depth;

    runtime_value operator()(std::monostate) const {
      return none{};
    }
    runtime_value operator()(bool x) const {
      return x;
    }
    runtime_value operator()(std::int64_t x) const {
      return x;
    }
    runtime_value operator()(double x) const {
      return x;
    }
    runtime_value operator()(const text_pieces& x) const {
      return make_text(marked_string{x});
    }
    runtime_value operator()(const value::list& x) const {
      list out;
      out.reserve(x.size());
      for (const auto& item : x)
        out.push_back(to_runtime(item, depth + 1));
      return make_list(std::move(out));
    }
    runtime_value operator()(const value::map& x) const {
      dict out;
      out.entries.reserve(x.size());
      // Names come from requests as well (arguments of tools), so they are
      // content.
      for (const auto& [name, item] : x)
        out.entries.emplace_back(marked_string{name, true},
                                 to_runtime(item, depth + 1));
      return make_dict(std::move(out));
    }
  };
  return std::visit(converter{depth}, from.data);
}

bool truth(const runtime_value& v) {
  if (const auto* x = v.get<bool>())
    return *x;
  if (const auto* x = v.get<std::int64_t>())
    return *x != 0;
  if (const auto* x = v.get<double>())
    return *x != 0;
  if (const auto* x = v.text())
    return !x->empty();
  if (const auto* x = v.items())
    return !x->empty();
  if (const auto* x = v.map())
    return !x->entries.empty();
  return !v.is_undefined() && !v.is_none();
}

std::string_view kind_of(const runtime_value& v) {
  if (v.is_undefined())
    return "undefined";
  if (v.is_none())
    return "None";
  if (v.get<bool>())
    return "bool";
  if (v.get<std::int64_t>())
    return "int";
  if (v.get<double>())
    return "float";
  if (v.text())
    return "str";
  if (v.items())
    return "list";
  if (v.map())
    return "dict";
  if (v.name_space())
    return "namespace";
  return v.loop() ? "loop" : "macro";
}

namespace {

/// Python's repr of a float: the shortest digits that read back, with an
/// exponent below 1e-4 and from 1e16 on.
std::string float_text(double x) {
  if (std::isnan(x))
    return "nan";
  if (std::isinf(x))
    return x < 0 ? "-inf" : "inf";
  char buffer[40];
  auto size = std::abs(x);
  auto plain = x == 0 || (size >= 1e-4 && size < 1e16);
  auto end = std::to_chars(buffer, buffer + sizeof buffer, x,
                           plain ? std::chars_format::fixed
                                 : std::chars_format::scientific)
                 .ptr;
  std::string out{buffer, end};
  if (plain && out.find('.') == std::string::npos)
    out += ".0";
  return out;
}

/// Numbers, booleans and none, which print and represent alike.
bool append_simple(const runtime_value& v, marked_string& out) {
  if (v.is_none())
    out.append("None", false);
  else if (const auto* b = v.get<bool>())
    out.append(*b ? "True" : "False", false);
  else if (const auto* i = v.get<std::int64_t>())
    out.append(std::to_string(*i), false);
  else if (const auto* d = v.get<double>())
    out.append(float_text(*d), false);
  else
    return false;
  return true;
}

void append_quoted(const marked_string& text, marked_string& out) {
  constexpr std::string_view hex = "0123456789abcdef";
  auto single = text.text().find('\'') == std::string::npos ||
                text.text().find('"') != std::string::npos;
  std::string_view quote = single ? "'" : "\"";
  out.append(quote, false);
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto c = text.text()[i];
    auto byte = static_cast<unsigned char>(c);
    if (c == '\\' || c == quote[0])
      out.append_like(std::string{'\\', c}, text, i);
    else if (c == '\n' || c == '\r' || c == '\t')
      out.append_like(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", text, i);
    else if (byte < ' ' || byte == 127)
      out.append_like(std::string{'\\', 'x', hex[byte >> 4], hex[byte & 15]},
                      text, i);
    else
      out.append_like({&c, 1}, text, i);
  }
  out.append(quote, false);
}

void append_represented(const runtime_value& v, marked_string& out) {
  if (append_simple(v, out))
    return;
  if (const auto* text = v.text()) {
    append_quoted(*text, out);
  } else if (const auto* items = v.items()) {
    out.append(items->tuple ? "(" : "[", false);
    for (std::size_t i = 0; i < items->size(); ++i) {
      out.append(i == 0 ? "" : ", ", false);
      append_represented((*items)[i], out);
    }
    if (items->tuple && items->size() == 1)
      out.append(",", false);
    out.append(items->tuple ? ")" : "]", false);
  } else if (const auto* map = v.map()) {
    out.append("{", false);
    auto first = true;
    for (const auto& [key, item] : map->entries) {
      out.append(first ? "" : ", ", false);
      first = false;
      append_quoted(key, out);
      out.append(": ", false);
      append_represented(item, out);
    }
    out.append("}", false);
  } else if (v.is_undefined()) {
    out.append("Undefined", false);
  } else {
    fail("a " + std::string{kind_of(v)} + " cannot be printed");
  }
}

void append_json_text(const marked_string& text, marked_string& out) {
  constexpr std::string_view hex = "0123456789abcdef";
  out.append("\"", false);
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto c = text.text()[i];
    auto byte = static_cast<unsigned char>(c);
    constexpr std::string_view special = "\"\\\n\r\t\b\f";
    constexpr std::string_view letters = "\"\\nrtbf";
    if (auto at = special.find(c); at != std::string_view::npos)
      out.append_like(std::string{'\\', letters[at]}, text, i);
    else if (byte < ' ')
      out.append_like(std::string{"\\u00"} + hex[byte >> 4] + hex[byte & 15],
                      text, i);
    else
      out.append_like({&c, 1}, text, i);
  }
  out.append("\"", false);
}

class json_printer {
public:
  json_printer(int indent, bool sort_keys)
      : indent_(indent), sort_keys_(sort_keys) {
    // nop
  }

  void print(const runtime_value& v, int level);
  marked_string out;

private:
  void separate(bool first, int level) {
    if (!first)
      out.append(indent_ >= 0 ? "," : ", ", false);
    new_line(level);
  }

  void new_line(int level) {
    if (indent_ >= 0)
      out.append(
          "\n" + std::string(static_cast<std::size_t>(indent_ * level), ' '),
          false);
  }

  void print_map(const dict& map, int level);

  int indent_;
  bool sort_keys_;
};

void json_printer::print_map(const dict& map, int level) {
  if (map.entries.empty()) {
    out.append("{}", false);
    return;
  }
  std::vector<const std::pair<marked_string, runtime_value>*> entries;
  for (const auto& entry : map.entries)
    entries.push_back(&entry);
  if (sort_keys_)
    std::stable_sort(entries.begin(), entries.end(), [](auto* a, auto* b) {
      return a->first.text() < b->first.text();
    });
  out.append("{", false);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    separate(i == 0, level + 1);
    append_json_text(entries[i]->first, out);
    out.append(": ", false);
    print(entries[i]->second, level + 1);
  }
  new_line(level);
  out.append("}", false);
}

void json_printer::print(const runtime_value& v, int level) {
  if (v.is_none())
    out.append("null", false);
  else if (const auto* b = v.get<bool>())
    out.append(*b ? "true" : "false", false);
  else if (const auto* text = v.text())
    append_json_text(*text, out);
  else if (const auto* map = v.map())
    print_map(*map, level);
  else if (const auto* items = v.items()) {
    if (items->empty()) {
      out.append("[]", false);
      return;
    }
    out.append("[", false);
    for (std::size_t i = 0; i < items->size(); ++i) {
      separate(i == 0, level + 1);
      print((*items)[i], level + 1);
    }
    new_line(level);
    out.append("]", false);
  } else if (!append_simple(v, out)) {
    fail("a value of kind " + std::string{kind_of(v)} +
         " cannot be written as JSON");
  }
}

std::optional<double> number_of(const runtime_value& v) {
  if (const auto* b = v.get<bool>())
    return *b ? 1 : 0;
  if (const auto* i = v.get<std::int64_t>())
    return static_cast<double>(*i);
  if (const auto* d = v.get<double>())
    return *d;
  return std::nullopt;
}

} // namespace

marked_string printed(const runtime_value& v) {
  if (const auto* text = v.text())
    return *text;
  if (v.is_undefined())
    return {};
  return represented(v);
}

marked_string represented(const runtime_value& v) {
  marked_string out;
  append_represented(v, out);
  return out;
}

marked_string to_json(const runtime_value& v, int indent, bool sort_keys) {
  json_printer printer{indent, sort_keys};
  printer.print(v, 0);
  return std::move(printer.out);
}

bool equal(const runtime_value& a, const runtime_value& b) {
  auto x = number_of(a);
  auto y = number_of(b);
  if (x && y) {
    const auto* i = a.get<std::int64_t>();
    const auto* j = b.get<std::int64_t>();
    return i && j ? *i == *j : *x == *y;
  }
  if (a.text() && b.text())
    return a.text()->text() == b.text()->text();
  if (a.items() && b.items())
    return a.items()->tuple == b.items()->tuple &&
           std::equal(a.items()->begin(), a.items()->end(), b.items()->begin(),
                      b.items()->end(), equal);
  if (a.map() && b.map()) {
    if (a.map()->entries.size() != b.map()->entries.size())
      return false;
    return std::all_of(a.map()->entries.begin(), a.map()->entries.end(),
                       [&](const auto& entry) {
                         const auto* other = b.map()->find(entry.first.text());
                         return other && equal(entry.second, *other);
                       });
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

bool less(const runtime_value& a, const runtime_value& b) {
  auto x = number_of(a);
  auto y = number_of(b);
  if (x && y)
    return *x < *y;
  if (a.text() && b.text())
    return a.text()->text() < b.text()->text();
  if (a.items() && b.items())
    return std::lexicographical_compare(a.items()->begin(), a.items()->end(),
                                        b.items()->begin(), b.items()->end(),
                                        less);
  fail("values of kind " + std::string{kind_of(a)} + " and " +
       std::string{kind_of(b)} + " have no order");
}

std::vector<marked_string> characters(const marked_string& text) {
  std::vector<marked_string> out;
  const auto& bytes = text.text();
  for (std::size_t i = 0; i < bytes.size();) {
    auto lead = static_cast<unsigned char>(bytes[i]);
    std::size_t size = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    std::size_t got = 1;
    while (got < size && i + got < bytes.size() &&
           (static_cast<unsigned char>(bytes[i + got]) & 0xC0) == 0x80)
      ++got;
    out.push_back(text.slice(i, got));
    i += got;
  }
  return out;
}

std::shared_ptr<const list> iterate(const runtime_value& v) {
  if (const auto* items = v.get<std::shared_ptr<const list>>())
    return *items;
  list out;
  if (const auto* text = v.text()) {
    for (auto& c : characters(*text))
      out.push_back(make_text(std::move(c)));
  } else if (const auto* map = v.map()) {
    for (const auto& [key, item] : map->entries)
      out.push_back(make_text(key));
  } else if (!v.is_undefined()) {
    fail("a value of kind " + std::string{kind_of(v)} + " cannot be gone over");
  }
  return std::make_shared<const list>(std::move(out));
}

} // namespace troupe::text::jinja
