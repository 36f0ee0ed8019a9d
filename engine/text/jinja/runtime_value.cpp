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

const runtime_value* dict::find(std::string_view key) const {
  for (const auto& [name, value] : entries)
    if (name.text() && name.text()->text() == key)
      return &value;
  return nullptr;
}

const runtime_value* dict::find(const runtime_value& key) const {
  if (const auto* text = key.text())
    return find(std::string_view{text->text()});
  for (const auto& [name, value] : entries)
    if (equal(name, key))
      return &value;
  return nullptr;
}

namespace {

bool can_be_key(const runtime_value& v) {
  return v.text() || v.number() || v.is_none();
}

bool can_be_key_or_tuple(const runtime_value& v) {
  const auto* items = v.items();
  return items ? items->tuple &&
                     std::all_of(items->begin(), items->end(), can_be_key)
               : can_be_key(v);
}

} // namespace

void dict::set(const runtime_value& key, runtime_value value) {
  if (!can_be_key_or_tuple(key))
    fail("a value of kind " + std::string{kind_of(key)} +
         " cannot be a key of a dict");
  auto old = std::find_if(entries.begin(), entries.end(),
                          [&](const auto& e) { return equal(e.first, key); });
  if (old != entries.end())
    old->second = std::move(value);
  else
    entries.emplace_back(key, std::move(value));
}

std::size_t depth_inside(const runtime_value& v) {
  std::size_t depth = 0;
  if (const auto* items = v.items())
    depth = items->depth;
  else if (const auto* map = v.map())
    depth = map->depth;
  else if (const auto* cycler = v.cycler())
    depth = cycler->items->depth;
  else if (const auto* f = v.function(); f && f->scope > template_scope)
    fail("a macro of a block cannot be put into another value");
  else if (v.name_space() || v.loop())
    fail("a " + std::string{kind_of(v)} + " cannot be put into another value");
  if (depth >= value_depth_max)
    throw render_error{errc::limit, "a value is nested too deeply"};
  return depth;
}

std::size_t weight_of(const runtime_value& v) {
  if (const auto* text = v.text())
    return text->size();
  if (const auto* items = v.items())
    return items->weight;
  if (const auto* map = v.map())
    return map->weight;
  return v.is_undefined() ? 0 : 1;
}

namespace {

std::size_t sum_of_weights(std::size_t a, std::size_t b) {
  return std::min(a + b, SIZE_MAX / 4);
}

std::size_t weight_in_list(const runtime_value& v) {
  return sum_of_weights(weight_of(v), 1);
}

} // namespace

runtime_value make_list(list items) {
  items.depth = 1;
  items.weight = 0;
  for (const auto& item : items) {
    items.depth = std::max(items.depth, depth_inside(item) + 1);
    items.weight = sum_of_weights(items.weight, weight_in_list(item));
  }
  return std::make_shared<const list>(std::move(items));
}

runtime_value make_tuple(list items) {
  items.tuple = true;
  return make_list(std::move(items));
}

runtime_value make_dict(dict entries) {
  for (const auto& [key, item] : entries.entries) {
    entries.depth = std::max(
        {entries.depth, depth_inside(key) + 1, depth_inside(item) + 1});
    entries.weight =
        sum_of_weights(entries.weight, sum_of_weights(weight_in_list(key),
                                                      weight_in_list(item)));
  }
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
        out.entries.emplace_back(make_text(marked_string{name, true}),
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
  if (v.loop())
    return "loop";
  if (v.cycler())
    return "cycler";
  if (v.joiner())
    return "joiner";
  return v.function()->macro ? "macro" : "function";
}

// The shortest digits that read back, with an exponent below 1e-4 and from
// 1e16 on.
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

namespace {

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
  if (text.is_markup())
    out.append("Markup(", false);
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
  if (text.is_markup())
    out.append(")", false);
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
      append_represented(key, out);
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

bool equal(const runtime_value& a, const runtime_value& b) {
  auto x = a.number();
  auto y = b.number();
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
                         const auto* other = b.map()->find(entry.first);
                         return other && equal(entry.second, *other);
                       });
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

bool less(const runtime_value& a, const runtime_value& b) {
  auto x = a.number();
  auto y = b.number();
  if (x && y) {
    const auto* i = a.get<std::int64_t>();
    const auto* j = b.get<std::int64_t>();
    return i && j ? *i < *j : *x < *y;
  }
  if (a.text() && b.text())
    return a.text()->text() < b.text()->text();
  if (a.items() && b.items())
    return std::lexicographical_compare(a.items()->begin(), a.items()->end(),
                                        b.items()->begin(), b.items()->end(),
                                        less);
  fail("values of kind " + std::string{kind_of(a)} + " and " +
       std::string{kind_of(b)} + " have no order");
}

std::size_t character_size(std::string_view text, std::size_t at) {
  auto lead = static_cast<unsigned char>(text[at]);
  std::size_t size = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  std::size_t got = 1;
  while (got < size && at + got < text.size() &&
         (static_cast<unsigned char>(text[at + got]) & 0xC0) == 0x80)
    ++got;
  return got;
}

std::vector<marked_string> characters(const marked_string& text) {
  std::vector<marked_string> out;
  for (std::size_t i = 0; i < text.size();) {
    auto size = character_size(text.text(), i);
    out.push_back(text.slice(i, size));
    i += size;
  }
  return out;
}

std::shared_ptr<const list> iterate(const runtime_value& v) {
  if (const auto* items = v.get<std::shared_ptr<const list>>())
    return *items;
  list out;
  if (const auto* text = v.text()) {
    for (auto& c : characters(*text))
      out.push_back(make_text(std::move(c).as_markup(false)));
  } else if (const auto* map = v.map()) {
    for (const auto& [key, item] : map->entries)
      out.push_back(key);
  } else if (!v.is_undefined()) {
    fail("a value of kind " + std::string{kind_of(v)} + " cannot be gone over");
  }
  return std::make_shared<const list>(std::move(out));
}

} // namespace troupe::text::jinja
