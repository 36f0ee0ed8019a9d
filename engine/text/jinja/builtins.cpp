#include "engine/text/jinja/builtins.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>

namespace troupe::text::jinja {

const runtime_value* call_arguments::find(std::size_t index,
                                          std::string_view name) const {
  if (index < positional.size())
    return &positional[index];
  for (const auto& [key, value] : named)
    if (key == name)
      return &value;
  return nullptr;
}

namespace {

constexpr std::string_view blanks = " \t\n\r\f\v";

const marked_string& text_argument(const runtime_value* v,
                                   std::string_view what) {
  if (v == nullptr || v->text() == nullptr)
    fail(std::string{what} + " needs a text");
  return *v->text();
}

std::int64_t whole_argument(const runtime_value* v, std::string_view what) {
  if (v != nullptr) {
    if (const auto* i = v->get<std::int64_t>())
      return *i;
    if (const auto* b = v->get<bool>())
      return *b ? 1 : 0;
  }
  fail(std::string{what} + " needs a whole number");
}

bool flag_argument(const runtime_value* v, bool fallback) {
  return v == nullptr ? fallback : truth(*v);
}

// -- text ---------------------------------------------------------------------

marked_string strip(const marked_string& text, std::string_view set, bool left,
                    bool right) {
  std::size_t from = 0;
  auto to = text.size();
  while (left && from < to && set.find(text.text()[from]) != set.npos)
    ++from;
  while (right && to > from && set.find(text.text()[to - 1]) != set.npos)
    --to;
  return text.slice(from, to - from);
}

char to_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}

char to_upper(char c) {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
}

marked_string lower(marked_string text) {
  text.transform(to_lower);
  return text;
}

marked_string upper(marked_string text) {
  text.transform(to_upper);
  return text;
}

marked_string capitalize(marked_string text) {
  auto first = true;
  text.transform([&](char c) {
    auto out = first ? to_upper(c) : to_lower(c);
    first = false;
    return out;
  });
  return text;
}

marked_string title(marked_string text) {
  auto inside = false;
  text.transform([&](char c) {
    auto letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                  static_cast<unsigned char>(c) >= 128;
    auto out = inside ? to_lower(c) : to_upper(c);
    inside = letter || (inside && (c == '\'' || (c >= '0' && c <= '9')));
    return out;
  });
  return text;
}

marked_string replace(meter& cost, const marked_string& text,
                      const marked_string& from, const marked_string& to,
                      std::int64_t count) {
  marked_string out;
  std::size_t at = 0;
  if (from.empty()) {
    for (const auto& c : characters(text)) {
      if (count-- != 0)
        out.append(to);
      out.append(c);
    }
    if (count != 0)
      out.append(to);
    cost.check_bytes(out.size());
    return out;
  }
  while (count-- != 0) {
    auto found = text.text().find(from.text(), at);
    if (found == std::string::npos)
      break;
    out.append(text.slice(at, found - at));
    out.append(to);
    cost.check_bytes(out.size());
    at = found + from.size();
  }
  out.append(text.slice(at));
  cost.check_bytes(out.size());
  return out;
}

runtime_value split(meter& cost, const marked_string& text,
                    const call_arguments& args, bool from_right) {
  const auto* by = args.find(0, "sep");
  const auto* most = args.find(1, "maxsplit");
  auto limit = most ? whole_argument(most, "split") : -1;
  list out;
  const auto& bytes = text.text();
  if (by == nullptr || by->is_none()) {
    if (from_right && limit >= 0)
      fail("rsplit with a limit needs a separator");
    for (auto at = bytes.find_first_not_of(blanks); at != std::string::npos;) {
      auto end = bytes.find_first_of(blanks, at);
      if (limit >= 0 && static_cast<std::int64_t>(out.size()) == limit)
        end = bytes.find_last_not_of(blanks) + 1;
      out.push_back(make_text(text.slice(at, end - at)));
      at = end == std::string::npos || end >= bytes.size()
               ? std::string::npos
               : bytes.find_first_not_of(blanks, end);
      cost.spend(1);
    }
    return make_list(std::move(out));
  }
  const auto& separator = text_argument(by, "split");
  if (separator.empty())
    fail("split by an empty text");
  std::vector<std::size_t> cuts;
  for (auto at = bytes.find(separator.text()); at != std::string::npos;
       at = bytes.find(separator.text(), at + separator.size()))
    cuts.push_back(at);
  auto kept = cuts.size();
  if (limit >= 0)
    kept = std::min(kept, static_cast<std::size_t>(limit));
  if (from_right)
    cuts.erase(cuts.begin(), cuts.end() - static_cast<std::ptrdiff_t>(kept));
  else
    cuts.resize(kept);
  cost.spend(cuts.size());
  std::size_t from = 0;
  for (auto cut : cuts) {
    out.push_back(make_text(text.slice(from, cut - from)));
    from = cut + separator.size();
  }
  out.push_back(make_text(text.slice(from)));
  return make_list(std::move(out));
}

runtime_value split_lines(meter& cost, const marked_string& text) {
  list out;
  const auto& bytes = text.text();
  for (std::size_t from = 0; from < bytes.size();) {
    auto end = bytes.find_first_of("\r\n", from);
    out.push_back(make_text(
        text.slice(from, end == std::string::npos ? end : end - from)));
    cost.spend(1);
    if (end == std::string::npos)
      break;
    from = end + (bytes.compare(end, 2, "\r\n") == 0 ? 2 : 1);
  }
  return make_list(std::move(out));
}

/// startswith and endswith, with a text or a list of texts.
bool affix(const marked_string& text, const runtime_value* wanted, bool front) {
  auto holds = [&](const marked_string& part) {
    return front ? text.text().starts_with(part.text())
                 : text.text().ends_with(part.text());
  };
  if (wanted != nullptr && wanted->items() != nullptr)
    return std::any_of(
        wanted->items()->begin(), wanted->items()->end(),
        [&](const auto& v) { return holds(text_argument(&v, "startswith")); });
  return holds(text_argument(wanted, "startswith"));
}

std::int64_t find_text(const marked_string& text, const marked_string& part) {
  auto at = text.text().find(part.text());
  if (at == std::string::npos)
    return -1;
  // Python counts characters.
  return static_cast<std::int64_t>(characters(text.slice(0, at)).size());
}

std::int64_t count_text(const marked_string& text, const marked_string& part) {
  if (part.empty())
    return static_cast<std::int64_t>(characters(text).size()) + 1;
  std::int64_t out = 0;
  for (auto at = text.text().find(part.text()); at != std::string::npos;
       at = text.text().find(part.text(), at + part.size()))
    ++out;
  return out;
}

marked_string joined(meter& cost, const runtime_value& over,
                     const marked_string& by, const runtime_value* member) {
  marked_string out;
  auto first = true;
  auto items = iterate(over);
  for (const auto& item : *items) {
    if (!first)
      out.append(by);
    first = false;
    out.append(printed(
        member ? attribute_of(item, text_argument(member, "join").text())
               : item));
    cost.spend(1);
    cost.check_bytes(out.size());
  }
  return out;
}

// -- lists and dicts ----------------------------------------------------------

runtime_value items_of_dict(const dict& map) {
  list out;
  for (const auto& [key, item] : map.entries)
    out.push_back(make_tuple({make_text(key), item}));
  return make_list(std::move(out));
}

/// A member by a path such as "function.name" or "0".
runtime_value member_by_path(const runtime_value& v, std::string_view path) {
  auto out = v;
  while (!path.empty()) {
    auto dot = path.find('.');
    auto step = path.substr(0, dot);
    std::int64_t index = 0;
    auto [end, code] =
        std::from_chars(step.data(), step.data() + step.size(), index);
    out = code == std::errc{} && end == step.data() + step.size()
              ? item_of(out, index)
              : attribute_of(out, step);
    path = dot == std::string_view::npos ? "" : path.substr(dot + 1);
  }
  return out;
}

runtime_value sorted(meter& cost, const runtime_value& over,
                     const call_arguments& args) {
  auto items = *iterate(over);
  cost.spend(items.size() * 8);
  auto backwards = flag_argument(args.find(0, "reverse"), false);
  auto exact_case = flag_argument(args.find(1, "case_sensitive"), false);
  const auto* by = args.find(2, "attribute");
  auto key = [&](const runtime_value& v) {
    auto out = by ? member_by_path(v, text_argument(by, "sort").text()) : v;
    if (!exact_case && out.text() != nullptr)
      return make_text(lower(*out.text()));
    return out;
  };
  std::vector<std::pair<runtime_value, runtime_value>> keyed;
  for (const auto& item : items)
    keyed.emplace_back(key(item), item);
  std::stable_sort(
      keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
        return backwards ? less(b.first, a.first) : less(a.first, b.first);
      });
  list out;
  for (auto& [k, item] : keyed)
    out.push_back(item);
  return make_list(std::move(out));
}

runtime_value sorted_dict(meter& cost, const runtime_value& v,
                          const call_arguments& args) {
  if (v.map() == nullptr)
    fail("dictsort needs a dict");
  if (!args.positional.empty() || !args.named.empty())
    fail("dictsort with arguments: not supported");
  call_arguments by_key;
  return sorted(cost, items_of_dict(*v.map()), by_key);
}

runtime_value unique(meter& cost, const runtime_value& over) {
  list out;
  auto items = iterate(over);
  for (const auto& item : *items) {
    cost.spend(out.size() + 1);
    if (std::none_of(out.begin(), out.end(),
                     [&](const auto& old) { return equal(old, item); }))
      out.push_back(item);
  }
  return make_list(std::move(out));
}

runtime_value reversed(const runtime_value& over) {
  if (const auto* text = over.text()) {
    auto parts = characters(*text);
    marked_string out;
    for (auto part = parts.rbegin(); part != parts.rend(); ++part)
      out.append(*part);
    return make_text(std::move(out));
  }
  auto items = *iterate(over);
  std::reverse(items.begin(), items.end());
  return make_list(std::move(items));
}

/// select, reject, selectattr, rejectattr.
runtime_value selected(meter& cost, const runtime_value& over,
                       const call_arguments& args, bool by_attribute,
                       bool keep) {
  list out;
  std::size_t next = by_attribute ? 1 : 0;
  auto test = args.positional.size() > next
                  ? text_argument(&args.positional[next], "select").text()
                  : std::string{};
  if (!test.empty() && !is_test(test))
    fail("unknown test \"" + test + "\"");
  call_arguments rest;
  for (auto i = next + 1; i < args.positional.size(); ++i)
    rest.positional.push_back(args.positional[i]);
  auto items = iterate(over);
  for (const auto& item : *items) {
    cost.spend(1);
    auto subject =
        by_attribute
            ? member_by_path(
                  item, text_argument(args.find(0, ""), "selectattr").text())
            : item;
    auto holds =
        test.empty() ? truth(subject) : apply_test(test, subject, rest);
    if (holds == keep)
      out.push_back(item);
  }
  return make_list(std::move(out));
}

runtime_value mapped(meter& cost, const runtime_value& over,
                     const call_arguments& args) {
  list out;
  const auto* by = args.find(1000, "attribute");
  const auto* fallback = args.find(1000, "default");
  call_arguments rest;
  for (std::size_t i = 1; i < args.positional.size(); ++i)
    rest.positional.push_back(args.positional[i]);
  auto items = iterate(over);
  for (const auto& item : *items) {
    cost.spend(1);
    if (by == nullptr) {
      auto filter = text_argument(args.find(0, ""), "map").text();
      if (!is_filter(filter))
        fail("unknown filter \"" + filter + "\"");
      out.push_back(apply_filter(cost, filter, item, rest));
      continue;
    }
    auto member = member_by_path(item, text_argument(by, "map").text());
    out.push_back(member.is_undefined() && fallback ? *fallback : member);
  }
  return make_list(std::move(out));
}

// -- numbers ------------------------------------------------------------------

runtime_value to_int(const runtime_value& v, const call_arguments& args) {
  const auto* fallback = args.find(0, "default");
  if (const auto* i = v.get<std::int64_t>())
    return *i;
  if (const auto* b = v.get<bool>())
    return std::int64_t{*b};
  if (const auto* d = v.get<double>(); d && std::abs(*d) < 9e18)
    return static_cast<std::int64_t>(*d);
  if (const auto* text = v.text()) {
    auto bare = strip(*text, blanks, true, true).text();
    auto digits = std::string_view{bare};
    if (digits.starts_with('+'))
      digits.remove_prefix(1);
    std::int64_t number = 0;
    auto [end, code] =
        std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (code == std::errc{} && end == digits.data() + digits.size())
      return number;
    double real = 0;
    auto [stop, bad] =
        std::from_chars(digits.data(), digits.data() + digits.size(), real);
    if (bad == std::errc{} && stop == digits.data() + digits.size() &&
        std::abs(real) < 9e18)
      return static_cast<std::int64_t>(real);
  }
  return fallback ? *fallback : runtime_value{std::int64_t{0}};
}

runtime_value to_float(const runtime_value& v, const call_arguments& args) {
  const auto* fallback = args.find(0, "default");
  if (const auto* i = v.get<std::int64_t>())
    return static_cast<double>(*i);
  if (const auto* d = v.get<double>())
    return *d;
  if (const auto* b = v.get<bool>())
    return *b ? 1.0 : 0.0;
  if (const auto* text = v.text()) {
    auto bare = strip(*text, blanks, true, true).text();
    double real = 0;
    auto [end, code] =
        std::from_chars(bare.data(), bare.data() + bare.size(), real);
    if (code == std::errc{} && end == bare.data() + bare.size())
      return real;
  }
  return fallback ? *fallback : runtime_value{0.0};
}

runtime_value absolute(const runtime_value& v) {
  if (const auto* i = v.get<std::int64_t>(); i && *i != INT64_MIN)
    return *i < 0 ? -*i : *i;
  if (const auto* d = v.get<double>())
    return std::abs(*d);
  fail("abs needs a number");
}

runtime_value rounded(const runtime_value& v, const call_arguments& args) {
  auto digits = args.find(0, "precision")
                    ? whole_argument(args.find(0, "precision"), "round")
                    : 0;
  if (const auto* method = args.find(1, "method");
      method && text_argument(method, "round").text() != "common")
    fail("round: only the common method is supported");
  auto real = to_float(v, {});
  auto x = *real.get<double>();
  if (digits < 0 || digits > 12)
    fail("round: the precision must be 0 to 12");
  auto scale = std::pow(10.0, static_cast<double>(digits));
  return std::nearbyint(x * scale) / scale;
}

runtime_value extreme(const runtime_value& over, bool largest) {
  auto items = iterate(over);
  if (items->empty())
    return undefined{"an item of an empty list"};
  auto best = items->front();
  for (const auto& item : *items)
    if (largest ? less(best, item) : less(item, best))
      best = item;
  return best;
}

runtime_value length(const runtime_value& v) {
  if (const auto* text = v.text())
    return static_cast<std::int64_t>(characters(*text).size());
  if (const auto* map = v.map())
    return static_cast<std::int64_t>(map->entries.size());
  return static_cast<std::int64_t>(iterate(v)->size());
}

runtime_value sum(meter& cost, const runtime_value& over,
                  const call_arguments& args) {
  const auto* by = args.find(0, "attribute");
  const auto* start = args.find(1, "start");
  double real = 0;
  std::int64_t whole = 0;
  auto floating = false;
  auto add = [&](const runtime_value& v) {
    cost.spend(1);
    if (const auto* i = v.get<std::int64_t>()) {
      if (__builtin_add_overflow(whole, *i, &whole))
        fail("a number is too large");
    } else if (const auto* d = v.get<double>()) {
      real += *d;
      floating = true;
    } else {
      fail("sum needs numbers");
    }
  };
  if (start)
    add(*start);
  auto items = iterate(over);
  for (const auto& item : *items)
    add(by ? member_by_path(item, text_argument(by, "sum").text()) : item);
  if (floating)
    return real + static_cast<double>(whole);
  return whole;
}

marked_string indented(meter& cost, const marked_string& text,
                       const call_arguments& args) {
  marked_string margin;
  const auto* width = args.find(0, "width");
  if (width != nullptr && width->text() != nullptr)
    margin = *width->text();
  else {
    auto spaces = width ? whole_argument(width, "indent") : 4;
    if (spaces < 0 || spaces > 1000)
      fail("indent: the width must be 0 to 1000");
    margin = marked_string{std::string(static_cast<std::size_t>(spaces), ' ')};
  }
  auto first = flag_argument(args.find(1, "first"), false);
  auto blank = flag_argument(args.find(2, "blank"), false);
  marked_string out;
  const auto& bytes = text.text();
  std::size_t from = 0;
  for (auto line = 0;; ++line) {
    auto end = bytes.find('\n', from);
    auto size = (end == std::string::npos ? bytes.size() : end) - from;
    if ((line > 0 || first) && (size > 0 || blank || line == 0))
      out.append(margin);
    out.append(text.slice(from, size));
    cost.spend(1);
    cost.check_bytes(out.size());
    if (end == std::string::npos)
      return out;
    out.append(text.slice(end, 1));
    from = end + 1;
  }
}

runtime_value fallback_for(const runtime_value& v, const call_arguments& args) {
  const auto* other = args.find(0, "default_value");
  auto also_false = flag_argument(args.find(1, "boolean"), false);
  if (v.is_undefined() || (also_false && !truth(v)))
    return other ? *other : make_text("");
  return v;
}

runtime_value json_of(meter& cost, const runtime_value& v,
                      const call_arguments& args) {
  for (const auto& [name, value] : args.named)
    if (name != "indent" && name != "ensure_ascii" && name != "sort_keys")
      fail("tojson: the argument " + name + " is not supported");
  const auto* indent = args.find(0, "indent");
  if (flag_argument(args.find(1000, "ensure_ascii"), false))
    fail("tojson: ensure_ascii is not supported");
  auto spaces = indent && !indent->is_none() ? whole_argument(indent, "tojson")
                                             : std::int64_t{-1};
  if (spaces > 100)
    fail("tojson: the indent is too large");
  auto out = to_json(v, static_cast<int>(spaces),
                     flag_argument(args.find(1000, "sort_keys"), false));
  cost.spend(out.size() / 16);
  cost.check_bytes(out.size());
  return make_text(std::move(out));
}

// -- the tables ---------------------------------------------------------------

using filter = runtime_value (*)(meter&, const runtime_value&,
                                 const call_arguments&);

/// A filter that maps printed text to text.
template <marked_string (*F)(marked_string)>
runtime_value on_text(meter&, const runtime_value& v, const call_arguments&) {
  return make_text(F(printed(v)));
}

const std::map<std::string_view, filter, std::less<>>& filters() {
  static const std::map<std::string_view, filter, std::less<>> table{
      {"abs", [](meter&, const runtime_value& v,
                 const call_arguments&) { return absolute(v); }},
      {"capitalize", on_text<capitalize>},
      {"count", [](meter&, const runtime_value& v,
                   const call_arguments&) { return length(v); }},
      {"d", [](meter&, const runtime_value& v,
               const call_arguments& a) { return fallback_for(v, a); }},
      {"default", [](meter&, const runtime_value& v,
                     const call_arguments& a) { return fallback_for(v, a); }},
      {"dictsort", sorted_dict},
      {"first",
       [](meter&, const runtime_value& v, const call_arguments&) {
         auto items = iterate(v);
         return items->empty() ? runtime_value{undefined{"the first item"}}
                               : items->front();
       }},
      {"float", [](meter&, const runtime_value& v,
                   const call_arguments& a) { return to_float(v, a); }},
      {"indent",
       [](meter& m, const runtime_value& v, const call_arguments& a) {
         return make_text(indented(m, printed(v), a));
       }},
      {"int", [](meter&, const runtime_value& v,
                 const call_arguments& a) { return to_int(v, a); }},
      {"items",
       [](meter&, const runtime_value& v, const call_arguments&) {
         if (v.is_undefined())
           return make_list({});
         if (v.map() == nullptr)
           fail("items needs a dict");
         return items_of_dict(*v.map());
       }},
      {"join",
       [](meter& m, const runtime_value& v, const call_arguments& a) {
         const auto* by = a.find(0, "d");
         return make_text(joined(m, v, by ? printed(*by) : marked_string{},
                                 a.find(1, "attribute")));
       }},
      {"last",
       [](meter&, const runtime_value& v, const call_arguments&) {
         auto items = iterate(v);
         return items->empty() ? runtime_value{undefined{"the last item"}}
                               : items->back();
       }},
      {"length", [](meter&, const runtime_value& v,
                    const call_arguments&) { return length(v); }},
      {"list",
       [](meter&, const runtime_value& v, const call_arguments&) {
         auto items = *iterate(v);
         items.tuple = false;
         return make_list(std::move(items));
       }},
      {"lower", on_text<lower>},
      {"map", mapped},
      {"max", [](meter&, const runtime_value& v,
                 const call_arguments&) { return extreme(v, true); }},
      {"min", [](meter&, const runtime_value& v,
                 const call_arguments&) { return extreme(v, false); }},
      {"reject",
       [](meter& m, const runtime_value& v, const call_arguments& a) {
         return selected(m, v, a, false, false);
       }},
      {"rejectattr",
       [](meter& m, const runtime_value& v, const call_arguments& a) {
         return selected(m, v, a, true, false);
       }},
      {"replace",
       [](meter& m, const runtime_value& v, const call_arguments& a) {
         auto count = a.find(2, "count");
         return make_text(replace(
             m, printed(v), text_argument(a.find(0, "old"), "replace"),
             text_argument(a.find(1, "new"), "replace"),
             count ? whole_argument(count, "replace") : std::int64_t{-1}));
       }},
      {"reverse", [](meter&, const runtime_value& v,
                     const call_arguments&) { return reversed(v); }},
      {"round", [](meter&, const runtime_value& v,
                   const call_arguments& a) { return rounded(v, a); }},
      {"safe", [](meter&, const runtime_value& v,
                  const call_arguments&) { return make_text(printed(v)); }},
      {"select",
       [](meter& m, const runtime_value& v, const call_arguments& a) {
         return selected(m, v, a, false, true);
       }},
      {"selectattr",
       [](meter& m, const runtime_value& v, const call_arguments& a) {
         return selected(m, v, a, true, true);
       }},
      {"sort", sorted},
      {"string", [](meter&, const runtime_value& v,
                    const call_arguments&) { return make_text(printed(v)); }},
      {"sum", sum},
      {"title", on_text<title>},
      {"tojson", json_of},
      {"trim",
       [](meter&, const runtime_value& v, const call_arguments& a) {
         const auto* set = a.find(0, "chars");
         return make_text(strip(printed(v),
                                set && !set->is_none()
                                    ? text_argument(set, "trim").text()
                                    : blanks,
                                true, true));
       }},
      {"unique", [](meter& m, const runtime_value& v,
                    const call_arguments&) { return unique(m, v); }},
      {"upper", on_text<upper>},
  };
  return table;
}

using test = bool (*)(const runtime_value&, const runtime_value*);

bool is_number(const runtime_value& v) {
  return v.get<std::int64_t>() || v.get<double>() || v.get<bool>();
}

bool contains(const runtime_value& whole, const runtime_value& part) {
  if (const auto* text = whole.text()) {
    if (part.text() == nullptr)
      fail("\"in\" a text needs a text on its left");
    return text->text().find(part.text()->text()) != std::string::npos;
  }
  if (const auto* map = whole.map())
    return part.text() && map->find(part.text()->text());
  auto items = iterate(whole);
  return std::any_of(items->begin(), items->end(),
                     [&](const auto& item) { return equal(item, part); });
}

const runtime_value& required(const runtime_value* v) {
  if (v == nullptr)
    fail("the test needs an argument");
  return *v;
}

std::int64_t whole(const runtime_value& v) {
  return whole_argument(&v, "the test");
}

const std::map<std::string_view, test, std::less<>>& tests() {
  using v = const runtime_value&;
  using a = const runtime_value*;
  static const std::map<std::string_view, test, std::less<>> table{
      {"boolean", [](v x, a) { return x.get<bool>() != nullptr; }},
      {"callable",
       [](v x, a) {
         return x.get<std::shared_ptr<const macro_definition>>() != nullptr;
       }},
      {"defined", [](v x, a) { return !x.is_undefined(); }},
      {"divisibleby",
       [](v x, a y) {
         auto by = whole(required(y));
         if (by == 0 || by == -1)
           fail("divisibleby needs another number");
         return whole(x) % by == 0;
       }},
      {"eq", [](v x, a y) { return equal(x, required(y)); }},
      {"equalto", [](v x, a y) { return equal(x, required(y)); }},
      {"even", [](v x, a) { return whole(x) % 2 == 0; }},
      {"false",
       [](v x, a) { return x.get<bool>() != nullptr && !*x.get<bool>(); }},
      {"float", [](v x, a) { return x.get<double>() != nullptr; }},
      {"ge", [](v x, a y) { return !less(x, required(y)); }},
      {"greaterthan", [](v x, a y) { return less(required(y), x); }},
      {"gt", [](v x, a y) { return less(required(y), x); }},
      {"in", [](v x, a y) { return contains(required(y), x); }},
      {"integer", [](v x, a) { return x.get<std::int64_t>() != nullptr; }},
      {"iterable",
       [](v x, a) {
         return x.text() || x.items() || x.map() || x.is_undefined();
       }},
      {"le", [](v x, a y) { return !less(required(y), x); }},
      {"lessthan", [](v x, a y) { return less(x, required(y)); }},
      {"lower",
       [](v x, a) {
         auto text = printed(x);
         return lower(text).text() == text.text() &&
                upper(text).text() != text.text();
       }},
      {"lt", [](v x, a y) { return less(x, required(y)); }},
      {"mapping", [](v x, a) { return x.map() != nullptr; }},
      {"ne", [](v x, a y) { return !equal(x, required(y)); }},
      {"none", [](v x, a) { return x.is_none(); }},
      {"number", [](v x, a) { return is_number(x); }},
      {"odd", [](v x, a) { return whole(x) % 2 != 0; }},
      {"sameas",
       [](v x, a y) {
         return kind_of(x) == kind_of(required(y)) && equal(x, *y);
       }},
      {"sequence",
       [](v x, a) {
         return x.text() || x.items() || x.map() || x.is_undefined();
       }},
      {"string", [](v x, a) { return x.text() != nullptr; }},
      {"true", [](v x, a) { return x.get<bool>() && *x.get<bool>(); }},
      {"undefined", [](v x, a) { return x.is_undefined(); }},
      {"upper",
       [](v x, a) {
         auto text = printed(x);
         return upper(text).text() == text.text() &&
                lower(text).text() != text.text();
       }},
  };
  return table;
}

constexpr std::array<std::string_view, 28> method_names{
    "capitalize", "count",        "cycle",        "endswith", "find",
    "get",        "index",        "isalnum",      "isalpha",  "isdigit",
    "isspace",    "items",        "join",         "keys",     "lower",
    "lstrip",     "replace",      "rsplit",       "rstrip",   "split",
    "splitlines", "startswith",   "strip",        "title",    "upper",
    "values",     "removeprefix", "removesuffix",
};

constexpr std::array<std::string_view, 5> function_names{
    "dict", "namespace", "raise_exception", "range", "strftime_now"};

template <class Names>
bool among(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// -- methods ------------------------------------------------------------------

bool all_of_kind(const marked_string& text, bool (*kind)(unsigned char)) {
  const auto& bytes = text.text();
  return !bytes.empty() && std::all_of(bytes.begin(), bytes.end(), [&](char c) {
    return kind(static_cast<unsigned char>(c));
  });
}

bool digit(unsigned char c) {
  return c >= '0' && c <= '9';
}

bool letter(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 128;
}

runtime_value text_method(meter& cost, const marked_string& text,
                          std::string_view name, const call_arguments& args) {
  const auto* first = args.find(0, "");
  auto set = [&] {
    return first && !first->is_none() ? text_argument(first, name).text()
                                      : std::string{blanks};
  };
  if (name == "strip")
    return make_text(strip(text, set(), true, true));
  if (name == "lstrip")
    return make_text(strip(text, set(), true, false));
  if (name == "rstrip")
    return make_text(strip(text, set(), false, true));
  if (name == "split" || name == "rsplit")
    return split(cost, text, args, name == "rsplit");
  if (name == "splitlines")
    return split_lines(cost, text);
  if (name == "startswith")
    return affix(text, first, true);
  if (name == "endswith")
    return affix(text, first, false);
  if (name == "removeprefix")
    return make_text(affix(text, first, true)
                         ? text.slice(text_argument(first, name).size())
                         : text);
  if (name == "removesuffix")
    return make_text(
        affix(text, first, false)
            ? text.slice(0, text.size() - text_argument(first, name).size())
            : text);
  if (name == "lower")
    return make_text(lower(text));
  if (name == "upper")
    return make_text(upper(text));
  if (name == "title")
    return make_text(title(text));
  if (name == "capitalize")
    return make_text(capitalize(text));
  if (name == "replace") {
    const auto* count = args.find(2, "count");
    return make_text(
        replace(cost, text, text_argument(first, name),
                text_argument(args.find(1, ""), name),
                count ? whole_argument(count, name) : std::int64_t{-1}));
  }
  if (name == "find")
    return find_text(text, text_argument(first, name));
  if (name == "index") {
    auto at = find_text(text, text_argument(first, name));
    if (at < 0)
      fail("index: the text is not there");
    return at;
  }
  if (name == "count")
    return count_text(text, text_argument(first, name));
  if (name == "join" && first != nullptr)
    return make_text(joined(cost, *first, text, nullptr));
  if (name == "isdigit")
    return all_of_kind(text, digit);
  if (name == "isalpha")
    return all_of_kind(text, letter);
  if (name == "isalnum")
    return all_of_kind(text,
                       [](unsigned char c) { return digit(c) || letter(c); });
  if (name == "isspace")
    return all_of_kind(text, [](unsigned char c) {
      return blanks.find(static_cast<char>(c)) != blanks.npos;
    });
  fail("a text has no method \"" + std::string{name} + "\"");
}

runtime_value dict_method(const dict& map, std::string_view name,
                          const call_arguments& args) {
  if (name == "items")
    return items_of_dict(map);
  if (name == "get") {
    const auto& key = text_argument(args.find(0, ""), "get");
    if (const auto* found = map.find(key.text()))
      return *found;
    const auto* fallback = args.find(1, "default");
    return fallback ? *fallback : runtime_value{none{}};
  }
  list out;
  if (name != "keys" && name != "values")
    fail("a dict has no method \"" + std::string{name} + "\"");
  for (const auto& [key, item] : map.entries)
    out.push_back(name == "keys" ? make_text(key) : item);
  return make_list(std::move(out));
}

runtime_value list_method(const list& items, std::string_view name,
                          const call_arguments& args) {
  const auto* wanted = args.find(0, "");
  if (wanted == nullptr || (name != "index" && name != "count"))
    fail("a list has no method \"" + std::string{name} + "\" of that form");
  auto same = [&](const auto& item) { return equal(item, *wanted); };
  if (name == "count")
    return static_cast<std::int64_t>(
        std::count_if(items.begin(), items.end(), same));
  auto at = std::find_if(items.begin(), items.end(), same);
  if (at == items.end())
    fail("index: the value is not in the list");
  return static_cast<std::int64_t>(at - items.begin());
}

runtime_value loop_member(const loop_state& loop, std::string_view name) {
  auto size = static_cast<std::int64_t>(loop.items->size());
  auto at = static_cast<std::int64_t>(loop.index);
  if (name == "index")
    return at + 1;
  if (name == "index0")
    return at;
  if (name == "revindex")
    return size - at;
  if (name == "revindex0")
    return size - at - 1;
  if (name == "first")
    return at == 0;
  if (name == "last")
    return at + 1 == size;
  if (name == "length")
    return size;
  if (name == "previtem" && at > 0)
    return (*loop.items)[loop.index - 1];
  if (name == "nextitem" && at + 1 < size)
    return (*loop.items)[loop.index + 1];
  return undefined{"loop." + std::string{name}};
}

} // namespace

bool is_filter(std::string_view name) {
  return filters().contains(name);
}

bool is_test(std::string_view name) {
  return tests().contains(name);
}

bool is_method(std::string_view name) {
  return among(method_names, name);
}

bool is_function(std::string_view name) {
  return among(function_names, name);
}

bool test_takes_argument(std::string_view name) {
  constexpr std::array<std::string_view, 13> names{
      "divisibleby", "eq", "equalto", "ge",       "greaterthan", "gt", "in",
      "le",          "lt", "ne",      "lessthan", "sameas",      "=="};
  return among(names, name);
}

runtime_value apply_filter(meter& cost, std::string_view name,
                           const runtime_value& input,
                           const call_arguments& args) {
  return filters().find(name)->second(cost, input, args);
}

bool apply_test(std::string_view name, const runtime_value& input,
                const call_arguments& args) {
  return tests().find(name)->second(input, args.find(0, ""));
}

runtime_value call_method(meter& cost, const runtime_value& object,
                          std::string_view name, const call_arguments& args) {
  if (const auto* text = object.text())
    return text_method(cost, *text, name, args);
  if (const auto* map = object.map())
    return dict_method(*map, name, args);
  if (const auto* map = object.name_space())
    return dict_method(*map, name, args);
  if (const auto* items = object.items())
    return list_method(*items, name, args);
  if (const auto* loop = object.loop();
      loop && name == "cycle" && !args.positional.empty())
    return args.positional[loop->index % args.positional.size()];
  if (const auto* missing = object.get<undefined>())
    fail("\"" + missing->name + "\" is undefined");
  fail("a value of kind " + std::string{kind_of(object)} + " has no method \"" +
       std::string{name} + "\"");
}

runtime_value attribute_of(const runtime_value& object, std::string_view name) {
  if (const auto* missing = object.get<undefined>())
    fail("\"" + missing->name + "\" is undefined");
  if (const auto* loop = object.loop())
    return loop_member(*loop, name);
  const auto* map = object.map() ? object.map() : object.name_space();
  if (map != nullptr)
    if (const auto* found = map->find(name))
      return *found;
  return undefined{std::string{name}};
}

runtime_value item_of(const runtime_value& object, const runtime_value& index) {
  if (const auto* key = index.text())
    return attribute_of(object, key->text());
  if (const auto* missing = object.get<undefined>())
    fail("\"" + missing->name + "\" is undefined");
  const auto* at = index.get<std::int64_t>();
  if (at == nullptr || (object.items() == nullptr && object.text() == nullptr))
    return undefined{"an item"};
  auto items = iterate(object);
  auto size = static_cast<std::int64_t>(items->size());
  auto place = *at < 0 ? *at + size : *at;
  if (place < 0 || place >= size)
    return undefined{"item " + std::to_string(*at)};
  return (*items)[static_cast<std::size_t>(place)];
}

marked_string concatenate(meter& cost, const marked_string& a,
                          const marked_string& b) {
  cost.check_bytes(a.size() + b.size());
  cost.spend((a.size() + b.size()) / 64);
  auto out = a;
  out.append(b);
  return out;
}

} // namespace troupe::text::jinja
