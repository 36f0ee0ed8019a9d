#include "engine/text/jinja/arguments.hpp"
#include "engine/text/jinja/filter_functions.hpp"
#include "engine/text/jinja/text_operations.hpp"

#include <map>

namespace troupe::text::jinja {

namespace {

using value_ref = const runtime_value&;
using args_ref = const call_arguments&;

struct filter {
  filter_function* apply;
  /// Names of the parameters; nothing is checked if `any_arguments`.
  std::vector<std::string_view> parameters{};
  bool any_arguments = false;
};

/// A filter that maps printed text to text.
template <marked_string (*F)(const marked_string&)>
runtime_value on_text(meter& cost, value_ref v, args_ref) {
  auto out = F(printed(cost, v));
  cost.check_bytes(out.size());
  return make_text(std::move(out));
}

runtime_value string_filter(meter& cost, value_ref v, args_ref) {
  return make_text(printed(cost, v));
}

runtime_value safe_filter(meter& cost, value_ref v, args_ref) {
  return make_text(printed(cost, v).as_markup(true));
}

runtime_value escape_filter(meter& cost, value_ref v, args_ref) {
  return make_text(escaped(cost, printed(cost, v)));
}

runtime_value force_escape_filter(meter& cost, value_ref v, args_ref) {
  return make_text(escaped(cost, printed(cost, v).as_markup(false)));
}

runtime_value length_filter(meter&, value_ref v, args_ref) {
  return length_of(v);
}

runtime_value default_filter(meter&, value_ref v, args_ref args) {
  const auto* other = args.find(0, "default_value");
  auto also_false = flag_argument(args.find(1, "boolean"), false);
  if (v.is_undefined() || (also_false && !truth(v)))
    return other ? *other : make_text("");
  return v;
}

runtime_value items_filter(meter&, value_ref v, args_ref) {
  if (v.is_undefined())
    return make_list({});
  if (v.map() == nullptr)
    fail("items needs a dict");
  return items_of_dict(*v.map());
}

runtime_value list_filter(meter& cost, value_ref v, args_ref) {
  auto items = *iterate(cost, v);
  cost.spend(items.size() / 16);
  items.tuple = items.group = false;
  return make_list(std::move(items));
}

runtime_value replace_filter(meter& cost, value_ref v, args_ref args) {
  const auto* from = args.find(0, "old");
  const auto* to = args.find(1, "new");
  const auto* count = args.find(2, "count");
  if (from == nullptr || to == nullptr)
    fail("replace needs two texts");
  auto most = count && !count->is_none() ? whole_argument(count, "replace")
                                         : std::int64_t{-1};
  auto out = replace(cost, printed(cost, v), printed(cost, *from),
                     printed(cost, *to), most);
  return make_text(std::move(out).as_markup(false));
}

runtime_value trim_filter(meter& cost, value_ref v, args_ref args) {
  const auto* set = args.find(0, "chars");
  auto all = set == nullptr || set->is_none();
  return make_text(strip(printed(cost, v),
                         all ? nullptr : &text_argument(set, "trim").text(),
                         true, true));
}

runtime_value center_filter(meter& cost, value_ref v, args_ref args) {
  return make_text(pad(cost, printed(cost, v),
                       whole_argument(args.find(0, "width"), "center", 80),
                       marked_string{" "}, side::center));
}

runtime_value wordcount_filter(meter& cost, value_ref v, args_ref) {
  return count_words(printed(cost, v));
}

/// A member that is no key of a dict.
runtime_value attr_filter(meter& cost, value_ref v, args_ref args) {
  const auto* name = args.find(0, "name");
  if (name == nullptr)
    fail("attr needs a name");
  auto spelled = printed(cost, *name);
  return v.map() ? runtime_value{undefined{spelled.text()}}
                 : attribute_of(v, spelled.text());
}

template <bool ByAttribute, bool Keep>
runtime_value select_filter(meter& cost, value_ref v, args_ref args) {
  return selected(cost, v, args, ByAttribute, Keep);
}

template <bool Largest>
runtime_value extreme_filter(meter& cost, value_ref v, args_ref args) {
  return extreme(cost, v, args, Largest);
}

const std::map<std::string_view, filter, std::less<>>& filters() {
  static const std::map<std::string_view, filter, std::less<>> table{
      {"abs", {abs_filter}},
      {"attr", {attr_filter, {"name"}}},
      {"batch", {batch_filter, {"linecount", "fill_with"}}},
      {"capitalize", {on_text<capitalize>}},
      {"center", {center_filter, {"width"}}},
      {"count", {length_filter}},
      {"d", {default_filter, {"default_value", "boolean"}}},
      {"default", {default_filter, {"default_value", "boolean"}}},
      {"dictsort", {dictsort_filter, {"case_sensitive", "by", "reverse"}}},
      {"e", {escape_filter}},
      {"escape", {escape_filter}},
      {"first", {first_filter}},
      {"float", {float_filter, {"default"}}},
      {"forceescape", {force_escape_filter}},
      {"format", {format_filter, {}, true}},
      {"groupby", {groupby_filter, {"attribute", "default", "case_sensitive"}}},
      {"indent", {indent_filter, {"width", "first", "blank"}}},
      {"int", {int_filter, {"default", "base"}}},
      {"items", {items_filter}},
      {"join", {join_filter, {"d", "attribute"}}},
      {"last", {last_filter}},
      {"length", {length_filter}},
      {"list", {list_filter}},
      {"lower", {on_text<lower>}},
      {"map", {map_filter, {}, true}},
      {"max", {extreme_filter<true>, {"case_sensitive", "attribute"}}},
      {"min", {extreme_filter<false>, {"case_sensitive", "attribute"}}},
      {"reject", {select_filter<false, false>, {}, true}},
      {"rejectattr", {select_filter<true, false>, {}, true}},
      {"replace", {replace_filter, {"old", "new", "count"}}},
      {"reverse", {reverse_filter}},
      {"round", {round_filter, {"precision", "method"}}},
      {"safe", {safe_filter}},
      {"select", {select_filter<false, true>, {}, true}},
      {"selectattr", {select_filter<true, true>, {}, true}},
      {"slice", {slice_filter, {"slices", "fill_with"}}},
      {"sort", {sort_filter, {"reverse", "case_sensitive", "attribute"}}},
      {"string", {string_filter}},
      {"sum", {sum_filter, {"attribute", "start"}}},
      {"title", {on_text<title_of_words>}},
      {"tojson",
       {tojson_filter, {"ensure_ascii", "indent", "separators", "sort_keys"}}},
      {"trim", {trim_filter, {"chars"}}},
      {"truncate", {truncate_filter, {"length", "killwords", "end", "leeway"}}},
      {"unique", {unique_filter, {"case_sensitive", "attribute"}}},
      {"upper", {on_text<upper>}},
      {"urlencode", {urlencode_filter}},
      {"wordcount", {wordcount_filter}},
  };
  return table;
}

} // namespace

bool is_filter(std::string_view name) {
  return filters().contains(name);
}

runtime_value apply_filter(meter& cost, std::string_view name,
                           const runtime_value& input,
                           const call_arguments& args) {
  const auto& filter = filters().find(name)->second;
  if (const auto* text = input.text())
    cost.spend(text->size() / 64);
  if (!filter.any_arguments)
    check_arguments(args, name, filter.parameters);
  return filter.apply(cost, input, args);
}

} // namespace troupe::text::jinja
