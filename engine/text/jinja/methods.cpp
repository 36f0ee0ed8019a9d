#include "engine/text/jinja/arguments.hpp"
#include "engine/text/jinja/filter_functions.hpp"
#include "engine/text/jinja/formatting.hpp"
#include "engine/text/jinja/text_operations.hpp"

#include <algorithm>
#include <array>
#include <map>

namespace troupe::text::jinja {

namespace {

/// What a method of a text knows.
struct text_call {
  meter& cost;
  const marked_string& text;
  std::string_view name;
  const call_arguments& args;

  const runtime_value* argument(std::size_t at,
                                std::string_view parameter = "") const {
    return args.find(at, parameter);
  }

  const marked_string& text_at(std::size_t at) const {
    return text_argument(argument(at), name);
  }
};

using text_method = runtime_value(const text_call&);

template <marked_string (*F)(const marked_string&)>
runtime_value changed(const text_call& call) {
  auto out = F(call.text);
  call.cost.check_bytes(out.size());
  return make_text(std::move(out));
}

template <bool Left, bool Right>
runtime_value strip_method(const text_call& call) {
  const auto* set = call.argument(0);
  auto spaces = set == nullptr || set->is_none();
  return make_text(
      strip(call.text, spaces ? nullptr : &text_argument(set, call.name).text(),
            Left, Right));
}

template <bool FromRight>
runtime_value split_method(const text_call& call) {
  const auto* by = call.argument(0, "sep");
  const auto* separator =
      by && !by->is_none() ? &text_argument(by, call.name) : nullptr;
  auto most = whole_argument(call.argument(1, "maxsplit"), call.name, -1);
  return make_list(split(call.cost, call.text, separator, most, FromRight));
}

runtime_value splitlines_method(const text_call& call) {
  auto keep = flag_argument(call.argument(0, "keepends"), false);
  return make_list(split_lines(call.cost, call.text, keep));
}

template <bool FromRight>
runtime_value partition_method(const text_call& call) {
  return make_tuple(partition(call.text, call.text_at(0), FromRight));
}

/// Characters [from, to) as the arguments behind the first say.
marked_string part_of(const text_call& call, std::int64_t& from) {
  const auto* first = call.argument(1);
  const auto* last = call.argument(2);
  auto size = static_cast<std::int64_t>(count_characters(call.text.text()));
  auto place = [&](const runtime_value* v, std::int64_t fallback) {
    if (v == nullptr || v->is_none())
      return fallback;
    auto at = whole_argument(v, call.name);
    return std::clamp(at < 0 ? std::max(at, -size) + size : at, std::int64_t{0},
                      size);
  };
  from = place(first, 0);
  auto to = std::max(place(last, size), from);
  auto skipped = first_characters(call.text, static_cast<std::size_t>(from));
  return first_characters(call.text.slice(skipped.size()),
                          static_cast<std::size_t>(to - from));
}

/// startswith and endswith, with a text or a tuple of texts.
template <bool Front>
runtime_value affix_method(const text_call& call) {
  std::int64_t from = 0;
  auto text = part_of(call, from).text();
  auto holds = [&](const marked_string& part) {
    return Front ? text.starts_with(part.text()) : text.ends_with(part.text());
  };
  const auto* wanted = call.argument(0);
  if (wanted == nullptr || wanted->items() == nullptr)
    return holds(text_argument(wanted, call.name));
  if (!wanted->items()->tuple)
    fail(std::string{call.name} + " needs a text or a tuple of texts");
  return std::any_of(
      wanted->items()->begin(), wanted->items()->end(),
      [&](const auto& v) { return holds(text_argument(&v, call.name)); });
}

template <bool Last, bool Fails>
runtime_value find_method(const text_call& call) {
  std::int64_t from = 0;
  auto at = find_text(part_of(call, from), call.text_at(0), Last);
  if (at < 0 && Fails)
    fail(std::string{call.name} + ": the text is not there");
  return at < 0 ? at : from + at;
}

runtime_value count_method(const text_call& call) {
  std::int64_t from = 0;
  return count_text(part_of(call, from), call.text_at(0));
}

runtime_value removeprefix_method(const text_call& call) {
  const auto& prefix = call.text_at(0);
  return make_text(call.text.text().starts_with(prefix.text())
                       ? call.text.slice(prefix.size())
                       : call.text);
}

runtime_value removesuffix_method(const text_call& call) {
  const auto& suffix = call.text_at(0);
  return make_text(call.text.text().ends_with(suffix.text())
                       ? call.text.slice(0, call.text.size() - suffix.size())
                       : call.text);
}

/// What a method puts into a text: escaped where that is markup.
marked_string put_in(const text_call& call, const marked_string& part) {
  return call.text.is_markup() ? escaped(call.cost, part) : part;
}

runtime_value replace_method(const text_call& call) {
  auto count = whole_argument(call.argument(2, "count"), call.name, -1);
  return make_text(replace(call.cost, call.text, call.text_at(0),
                           put_in(call, call.text_at(1)), count));
}

runtime_value join_method(const text_call& call) {
  const auto* over = call.argument(0);
  if (over == nullptr)
    fail("join needs a list");
  auto items = iterate(call.cost, *over);
  auto markup = call.text.is_markup();
  for (const auto& item : *items)
    if (!markup)
      text_argument(&item, "join");
  auto out = joined(call.cost, *items, call.text, markup);
  return make_text(std::move(out).as_markup(markup));
}

template <side Where>
runtime_value pad_method(const text_call& call) {
  const auto* fill = call.argument(1, "fillchar");
  return make_text(pad(
      call.cost, call.text, whole_argument(call.argument(0), call.name),
      fill ? put_in(call, text_argument(fill, call.name)) : marked_string{" "},
      Where));
}

runtime_value zfill_method(const text_call& call) {
  return make_text(zero_fill(call.cost, call.text,
                             whole_argument(call.argument(0), call.name)));
}

runtime_value format_method(const text_call& call) {
  return make_text(format_braces(call.cost, call.text, call.args));
}

runtime_value format_map_method(const text_call& call) {
  const auto* values = call.argument(0);
  if (values == nullptr || values->map() == nullptr)
    fail("format_map needs a dict");
  call_arguments args;
  for (const auto& [name, v] : values->map()->entries)
    if (name.text())
      args.named.emplace_back(name.text()->text(), v);
  return make_text(format_braces(call.cost, call.text, args));
}

template <character_kind Kind>
runtime_value kind_method(const text_call& call) {
  call.cost.spend(call.text.size() / 16);
  return all_of_kind(call.text, Kind);
}

template <bool (*F)(const marked_string&)>
runtime_value case_method(const text_call& call) {
  return F(call.text);
}

runtime_value isascii_method(const text_call& call) {
  const auto& bytes = call.text.text();
  return std::all_of(bytes.begin(), bytes.end(), [](char c) {
    return static_cast<unsigned char>(c) < 128;
  });
}

struct method_entry {
  text_method* apply;
  std::vector<std::string_view> parameters{};
  bool any_arguments = false;
};

const std::map<std::string_view, method_entry, std::less<>>& text_methods() {
  static const std::map<std::string_view, method_entry, std::less<>> table{
      {"capitalize", {changed<capitalize>}},
      {"center", {pad_method<side::center>, {"", ""}}},
      {"count", {count_method, {"", "", ""}}},
      {"endswith", {affix_method<false>, {"", "", ""}}},
      {"find", {find_method<false, false>, {"", "", ""}}},
      {"format", {format_method, {}, true}},
      {"format_map", {format_map_method, {""}}},
      {"index", {find_method<false, true>, {"", "", ""}}},
      {"isalnum", {kind_method<character_kind::word>}},
      {"isalpha", {kind_method<character_kind::letter>}},
      {"isascii", {isascii_method}},
      {"isdecimal", {kind_method<character_kind::decimal>}},
      {"isdigit", {kind_method<character_kind::digit>}},
      {"islower", {case_method<is_lower>}},
      {"isnumeric", {kind_method<character_kind::numeric>}},
      {"isspace", {kind_method<character_kind::space>}},
      {"istitle", {case_method<is_title>}},
      {"isupper", {case_method<is_upper>}},
      {"join", {join_method, {""}}},
      {"ljust", {pad_method<side::left>, {"", ""}}},
      {"lower", {changed<lower>}},
      {"lstrip", {strip_method<true, false>, {""}}},
      {"partition", {partition_method<false>, {""}}},
      {"removeprefix", {removeprefix_method, {""}}},
      {"removesuffix", {removesuffix_method, {""}}},
      {"replace", {replace_method, {"", "", "count"}}},
      {"rfind", {find_method<true, false>, {"", "", ""}}},
      {"rindex", {find_method<true, true>, {"", "", ""}}},
      {"rjust", {pad_method<side::right>, {"", ""}}},
      {"rpartition", {partition_method<true>, {""}}},
      {"rsplit", {split_method<true>, {"sep", "maxsplit"}}},
      {"rstrip", {strip_method<false, true>, {""}}},
      {"split", {split_method<false>, {"sep", "maxsplit"}}},
      {"splitlines", {splitlines_method, {"keepends"}}},
      {"startswith", {affix_method<true>, {"", "", ""}}},
      {"strip", {strip_method<true, true>, {""}}},
      {"swapcase", {changed<swap_case>}},
      {"title", {changed<title>}},
      {"upper", {changed<upper>}},
      {"zfill", {zfill_method, {""}}},
  };
  return table;
}

/// Methods of Python that change what they belong to: refused as they run.
constexpr std::array<std::string_view, 13> changing_methods{
    "add",  "append", "clear",   "discard",    "extend", "insert", "pop",
    "sort", "remove", "popitem", "setdefault", "update", "reverse"};

/// Methods of dicts, lists, loops and cyclers.
constexpr std::array<std::string_view, 9> other_methods{
    "changed", "copy", "cycle", "get",   "items",
    "keys",    "next", "reset", "values"};

bool among(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

[[noreturn]] void no_method(const runtime_value& object,
                            std::string_view name) {
  if (among(changing_methods, name))
    fail("\"" + std::string{name} + "\" is refused: values must not change");
  fail("a value of kind " + std::string{kind_of(object)} + " has no method \"" +
       std::string{name} + "\"");
}

runtime_value dict_method(meter& cost, const runtime_value& object,
                          const dict& map, std::string_view name,
                          const call_arguments& args) {
  cost.spend(map.entries.size() / 16);
  if (name == "get") {
    constexpr std::array<std::string_view, 2> parameters{"", ""};
    check_arguments(args, name, parameters);
    const auto* key = args.find(0, "");
    if (key == nullptr)
      fail("get needs a key");
    if (const auto* found = map.find(*key))
      return *found;
    const auto* fallback = args.find(1, "");
    return fallback ? *fallback : runtime_value{none{}};
  }
  check_arguments(args, name, {});
  if (name == "items")
    return items_of_dict(map);
  if (name == "copy")
    return make_dict(map);
  if (name != "keys" && name != "values")
    no_method(object, name);
  list out;
  for (const auto& [key, item] : map.entries)
    out.push_back(name == "keys" ? key : item);
  return make_list(std::move(out));
}

runtime_value list_method(meter& cost, const runtime_value& object,
                          const list& items, std::string_view name,
                          const call_arguments& args) {
  if (name == "copy" && !items.tuple)
    return object;
  if (name != "index" && name != "count")
    no_method(object, name);
  const auto* wanted = args.find(0, "");
  if (wanted == nullptr)
    fail(std::string{name} + " needs a value");
  cost.spend(items.size() + weight_of(object) / 64);
  auto same = [&](const auto& item) { return equal(item, *wanted); };
  if (name == "count")
    return static_cast<std::int64_t>(
        std::count_if(items.begin(), items.end(), same));
  auto at = std::find_if(items.begin(), items.end(), same);
  if (at == items.end())
    fail("index: the value is not in the list");
  return static_cast<std::int64_t>(at - items.begin());
}

runtime_value loop_method(meter& cost, const runtime_value& object,
                          loop_state& loop, std::string_view name,
                          const call_arguments& args) {
  if (name == "cycle") {
    if (args.positional.empty())
      fail("cycle needs values");
    return args.positional[loop.index % args.positional.size()];
  }
  if (name != "changed")
    no_method(object, name);
  list now;
  now.insert(now.end(), args.positional.begin(), args.positional.end());
  auto values = make_tuple(std::move(now));
  cost.spend(weight_of(values) / 64);
  auto all = values.get<std::shared_ptr<const list>>();
  auto same = loop.seen && equal(runtime_value{loop.seen}, values);
  if (!same)
    loop.seen = *all;
  return !same;
}

runtime_value cycler_method(const runtime_value& object, cycler_state& cycler,
                            std::string_view name) {
  if (name == "reset") {
    cycler.at = 0;
    return none{};
  }
  if (name != "next")
    no_method(object, name);
  auto out = (*cycler.items)[cycler.at];
  cycler.at = (cycler.at + 1) % cycler.items->size();
  return out;
}

} // namespace

bool is_method(std::string_view name) {
  return text_methods().contains(name) || among(other_methods, name) ||
         among(changing_methods, name);
}

runtime_value call_method(meter& cost, const runtime_value& object,
                          std::string_view name, const call_arguments& args) {
  if (const auto* text = object.text()) {
    auto found = text_methods().find(name);
    if (found == text_methods().end())
      no_method(object, name);
    if (!found->second.any_arguments)
      check_arguments(args, name, found->second.parameters);
    cost.spend(text->size() / 64);
    return found->second.apply({cost, *text, name, args});
  }
  if (const auto* map = object.map())
    return dict_method(cost, object, *map, name, args);
  if (const auto* map = object.name_space())
    return dict_method(cost, object, *map, name, args);
  if (const auto* items = object.items())
    return list_method(cost, object, *items, name, args);
  if (auto* loop = object.loop())
    return loop_method(cost, object, *loop, name, args);
  if (auto* cycler = object.cycler())
    return cycler_method(object, *cycler, name);
  if (const auto* missing = object.get<undefined>())
    fail("\"" + missing->name + "\" is undefined");
  no_method(object, name);
}

} // namespace troupe::text::jinja
