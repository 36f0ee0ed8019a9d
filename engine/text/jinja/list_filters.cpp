#include "engine/text/character_sets.hpp"
#include "engine/text/jinja/arguments.hpp"
#include "engine/text/jinja/arithmetic.hpp"
#include "engine/text/jinja/filter_functions.hpp"
#include "engine/text/jinja/text_operations.hpp"

#include <algorithm>
#include <bit>
#include <charconv>

namespace troupe::text::jinja {

namespace {

/// Arguments that only have a name: behind all places.
constexpr std::size_t named_only = SIZE_MAX;

runtime_value step_of(std::string_view step) {
  std::int64_t index = 0;
  auto [end, code] =
      std::from_chars(step.data(), step.data() + step.size(), index);
  if (code == std::errc{} && end == step.data() + step.size() && index >= 0)
    return index;
  return make_text(step);
}

/// Takes what comparing all items with each other `rounds` times takes.
void spend_on_items(meter& cost, const runtime_value& over,
                    std::size_t rounds) {
  auto size = iterate(cost, over)->size() + weight_of(over) / 64 + 1;
  std::size_t all = 0;
  if (__builtin_mul_overflow(size, rounds, &all))
    all = SIZE_MAX;
  cost.spend(all);
}

/// What sort, min, unique and groupby compare.
class sort_key {
public:
  sort_key(const runtime_value* attribute, bool exact_case)
      : attribute_(attribute && !attribute->is_none() ? attribute : nullptr),
        exact_case_(exact_case) {
    // nop
  }

  runtime_value of(const runtime_value& item) const {
    auto out = attribute_ ? member_by_path(item, *attribute_) : item;
    return exact_case_ ? out : without_case(out);
  }

private:
  const runtime_value* attribute_;
  bool exact_case_;
};

using keyed_items = std::vector<std::pair<runtime_value, runtime_value>>;

list in_order(meter& cost, const runtime_value& over, keyed_items keyed,
              bool backwards) {
  spend_on_items(cost, over, std::bit_width(keyed.size()));
  std::stable_sort(
      keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
        return backwards ? less(b.first, a.first) : less(a.first, b.first);
      });
  list out;
  for (auto& [key, item] : keyed)
    out.push_back(std::move(item));
  return out;
}

/// The keys by "a,b" of `sort`.
runtime_value key_by_all(const runtime_value& item, std::string_view paths,
                         bool exact_case) {
  list out;
  for (std::size_t from = 0;;) {
    auto comma = paths.find(',', from);
    auto path = make_text(paths.substr(from, comma - from));
    out.push_back(sort_key{&path, exact_case}.of(item));
    if (comma == std::string_view::npos)
      return make_list(std::move(out));
    from = comma + 1;
  }
}

} // namespace

runtime_value member_by_path(const runtime_value& v,
                             const runtime_value& path) {
  if (path.get<std::int64_t>())
    return item_of(v, path);
  std::string_view rest = text_argument(&path, "an attribute").text();
  auto out = v;
  for (;;) {
    auto dot = rest.find('.');
    out = item_of(out, step_of(rest.substr(0, dot)));
    if (dot == std::string_view::npos)
      return out;
    rest.remove_prefix(dot + 1);
  }
}

runtime_value without_case(const runtime_value& v) {
  return v.text() ? make_text(lower(*v.text())) : v;
}

runtime_value items_of_dict(const dict& map) {
  list out;
  for (const auto& [key, item] : map.entries)
    out.push_back(make_tuple({key, item}));
  return make_list(std::move(out));
}

runtime_value sort_filter(meter& cost, const runtime_value& over,
                          const call_arguments& args) {
  auto backwards = flag_argument(args.find(0, "reverse"), false);
  auto exact_case = flag_argument(args.find(1, "case_sensitive"), false);
  const auto* by = args.find(2, "attribute");
  keyed_items keyed;
  auto items = iterate(cost, over);
  for (const auto& item : *items) {
    auto several =
        by && by->text() && by->text()->text().find(',') != std::string::npos;
    keyed.emplace_back(several
                           ? key_by_all(item, by->text()->text(), exact_case)
                           : sort_key{by, exact_case}.of(item),
                       item);
  }
  return make_list(in_order(cost, over, std::move(keyed), backwards));
}

runtime_value dictsort_filter(meter& cost, const runtime_value& v,
                              const call_arguments& args) {
  if (v.map() == nullptr)
    fail("dictsort needs a dict");
  const auto* by = args.find(1, "by");
  auto what = by ? text_argument(by, "dictsort").text() : "key";
  if (what != "key" && what != "value")
    fail("dictsort: by must be \"key\" or \"value\"");
  sort_key key{nullptr, flag_argument(args.find(0, "case_sensitive"), false)};
  keyed_items keyed;
  for (const auto& [name, item] : v.map()->entries)
    keyed.emplace_back(key.of(what == "key" ? name : item),
                       make_tuple({name, item}));
  return make_list(in_order(cost, v, std::move(keyed),
                            flag_argument(args.find(2, "reverse"), false)));
}

runtime_value unique_filter(meter& cost, const runtime_value& over,
                            const call_arguments& args) {
  sort_key key{args.find(1, "attribute"),
               flag_argument(args.find(0, "case_sensitive"), false)};
  list seen;
  list out;
  auto items = iterate(cost, over);
  for (const auto& item : *items) {
    auto now = key.of(item);
    cost.spend(seen.size() + 1);
    cost.spend(weight_of(now) / 64 * (seen.size() + 1));
    if (std::any_of(seen.begin(), seen.end(),
                    [&](const auto& old) { return equal(old, now); }))
      continue;
    seen.push_back(now);
    out.push_back(item);
  }
  return make_list(std::move(out));
}

runtime_value reverse_filter(meter& cost, const runtime_value& over,
                             const call_arguments&) {
  if (const auto* text = over.text()) {
    cost.spend(text->size() / 16);
    marked_string out;
    std::string_view rest = text->text();
    while (!rest.empty()) {
      auto size = last_character(rest).size();
      rest.remove_suffix(size);
      out.append(text->slice(rest.size(), size));
    }
    return make_text(std::move(out).as_markup(text->is_markup()));
  }
  auto items = *iterate(cost, over);
  items.tuple = items.group = false;
  std::reverse(items.begin(), items.end());
  return make_list(std::move(items));
}

runtime_value selected(meter& cost, const runtime_value& over,
                       const call_arguments& args, bool by_attribute,
                       bool keep) {
  list out;
  std::size_t next = by_attribute ? 1 : 0;
  if (args.positional.size() < next)
    fail("selectattr and rejectattr need an attribute");
  auto test = args.positional.size() > next
                  ? text_argument(&args.positional[next], "select").text()
                  : std::string{};
  if (!test.empty() && !is_test(test))
    fail("unknown test \"" + test + "\"");
  call_arguments rest;
  for (auto i = next + 1; i < args.positional.size(); ++i)
    rest.positional.push_back(args.positional[i]);
  auto items = iterate(cost, over);
  for (const auto& item : *items) {
    cost.spend(1);
    auto subject =
        by_attribute ? member_by_path(item, args.positional[0]) : item;
    auto holds =
        test.empty() ? truth(subject) : apply_test(cost, test, subject, rest);
    if (holds == keep)
      out.push_back(item);
  }
  return make_list(std::move(out));
}

runtime_value map_filter(meter& cost, const runtime_value& over,
                         const call_arguments& args) {
  list out;
  const auto* by = args.find(named_only, "attribute");
  const auto* fallback = args.find(named_only, "default");
  call_arguments rest;
  for (std::size_t i = 1; i < args.positional.size(); ++i)
    rest.positional.push_back(args.positional[i]);
  if (by == nullptr)
    rest.named = args.named;
  auto items = iterate(cost, over);
  for (const auto& item : *items) {
    cost.spend(1);
    if (by == nullptr) {
      auto filter = text_argument(args.find(0, ""), "map").text();
      if (!is_filter(filter))
        fail("unknown filter \"" + filter + "\"");
      out.push_back(apply_filter(cost, filter, item, rest));
      continue;
    }
    auto member = member_by_path(item, *by);
    out.push_back(member.is_undefined() && fallback ? *fallback : member);
  }
  return make_list(std::move(out));
}

runtime_value sum_filter(meter& cost, const runtime_value& over,
                         const call_arguments& args) {
  const auto* by = args.find(0, "attribute");
  const auto* start = args.find(1, "start");
  auto out = start ? *start : runtime_value{std::int64_t{0}};
  if (out.text())
    fail("sum does not add texts");
  auto items = iterate(cost, over);
  for (const auto& item : *items) {
    cost.spend(1);
    auto named = by && !by->is_none();
    out = arithmetic(cost, binary_op::add, out,
                     named ? member_by_path(item, *by) : item);
  }
  return out;
}

runtime_value batch_filter(meter& cost, const runtime_value& over,
                           const call_arguments& args) {
  auto size = whole_argument(args.find(0, "linecount"), "batch");
  const auto* fill = args.find(1, "fill_with");
  list out;
  list part;
  auto items = iterate(cost, over);
  cost.spend(items->size());
  for (const auto& item : *items) {
    if (static_cast<std::int64_t>(part.size()) == size) {
      out.push_back(make_list(std::move(part)));
      part = {};
    }
    part.push_back(item);
  }
  if (part.empty())
    return make_list(std::move(out));
  auto missing = size - static_cast<std::int64_t>(part.size());
  if (fill && !fill->is_none() && missing > 0) {
    cost.spend(static_cast<std::size_t>(missing));
    part.insert(part.end(), static_cast<std::size_t>(missing), *fill);
  }
  out.push_back(make_list(std::move(part)));
  return make_list(std::move(out));
}

runtime_value slice_filter(meter& cost, const runtime_value& over,
                           const call_arguments& args) {
  auto count = whole_argument(args.find(0, "slices"), "slice");
  const auto* fill = args.find(1, "fill_with");
  auto items = iterate(cost, over);
  if (count == 0)
    fail("slice needs one slice at least");
  list out;
  if (count < 0)
    return make_list(std::move(out));
  cost.spend(static_cast<std::size_t>(count));
  cost.spend(items->size());
  auto size = static_cast<std::int64_t>(items->size()) / count;
  auto longer = static_cast<std::int64_t>(items->size()) % count;
  auto from = items->begin();
  for (std::int64_t i = 0; i < count; ++i) {
    auto to = from + static_cast<std::ptrdiff_t>(size + (i < longer ? 1 : 0));
    list part;
    part.insert(part.end(), from, to);
    if (fill && !fill->is_none() && i >= longer)
      part.push_back(*fill);
    out.push_back(make_list(std::move(part)));
    from = to;
  }
  return make_list(std::move(out));
}

runtime_value groupby_filter(meter& cost, const runtime_value& over,
                             const call_arguments& args) {
  const auto* by = args.find(0, "attribute");
  const auto* fallback = args.find(1, "default");
  auto exact_case = flag_argument(args.find(2, "case_sensitive"), false);
  if (by == nullptr)
    fail("groupby needs an attribute");
  auto group_of = [&](const runtime_value& item) {
    auto out = member_by_path(item, *by);
    return out.is_undefined() && fallback && !fallback->is_none() ? *fallback
                                                                  : out;
  };
  auto key = [&](const runtime_value& item) {
    auto out = group_of(item);
    return exact_case ? out : without_case(out);
  };
  keyed_items keyed;
  auto items = iterate(cost, over);
  for (const auto& item : *items)
    keyed.emplace_back(key(item), item);
  auto sorted = in_order(cost, over, std::move(keyed), false);
  list out;
  for (auto first = sorted.begin(); first != sorted.end();) {
    auto last = std::find_if(first, sorted.end(), [&](const auto& item) {
      return !equal(key(*first), key(item));
    });
    list group;
    group.insert(group.end(), first, last);
    list pair{group_of(*first), make_list(std::move(group))};
    pair.group = true;
    out.push_back(make_tuple(std::move(pair)));
    first = last;
  }
  return make_list(std::move(out));
}

runtime_value join_filter(meter& cost, const runtime_value& over,
                          const call_arguments& args) {
  const auto* by = args.find(0, "d");
  const auto* attribute = args.find(1, "attribute");
  auto items = *iterate(cost, over);
  if (attribute && !attribute->is_none())
    for (auto& item : items)
      item = member_by_path(item, *attribute);
  auto between = by ? printed(cost, *by) : marked_string{};
  return make_text(joined(cost, items, between, false));
}

runtime_value first_filter(meter&, const runtime_value& v,
                           const call_arguments&) {
  if (const auto* text = v.text(); text && !text->empty())
    return make_text(first_characters(*text, 1).as_markup(false));
  auto items = iterate(v);
  return items->empty() ? runtime_value{undefined{"the first item"}}
                        : items->front();
}

runtime_value last_filter(meter&, const runtime_value& v,
                          const call_arguments&) {
  if (const auto* text = v.text(); text && !text->empty())
    return make_text(
        text->slice(text->size() - last_character(text->text()).size()));
  auto items = iterate(v);
  return items->empty() ? runtime_value{undefined{"the last item"}}
                        : items->back();
}

runtime_value extreme(meter& cost, const runtime_value& over,
                      const call_arguments& args, bool largest) {
  auto items = iterate(cost, over);
  if (items->empty())
    return undefined{"an item of an empty list"};
  spend_on_items(cost, over, 1);
  sort_key key{args.find(1, "attribute"),
               flag_argument(args.find(0, "case_sensitive"), false)};
  auto best = items->front();
  auto best_key = key.of(best);
  for (const auto& item : *items) {
    auto now = key.of(item);
    if (largest ? !less(best_key, now) : !less(now, best_key))
      continue;
    best = item;
    best_key = now;
  }
  return best;
}

runtime_value length_of(const runtime_value& v) {
  if (const auto* text = v.text())
    return static_cast<std::int64_t>(count_characters(text->text()));
  if (const auto* map = v.map())
    return static_cast<std::int64_t>(map->entries.size());
  return static_cast<std::int64_t>(iterate(v)->size());
}

} // namespace troupe::text::jinja
