#include "engine/text/jinja/arguments.hpp"
#include "engine/text/jinja/text_operations.hpp"

#include <algorithm>
#include <array>
#include <map>

namespace troupe::text::jinja {

namespace {

using value_ref = const runtime_value&;
using test_function = bool(value_ref, value_ref);

struct test {
  bool takes_argument;
  test_function* holds;
};

std::int64_t whole(value_ref v) {
  return whole_argument(&v, "the test");
}

bool is_equal(value_ref x, value_ref y) {
  return equal(x, y);
}

bool is_not_equal(value_ref x, value_ref y) {
  return !equal(x, y);
}

bool is_less(value_ref x, value_ref y) {
  return less(x, y);
}

bool is_at_most(value_ref x, value_ref y) {
  return !less(y, x);
}

bool is_greater(value_ref x, value_ref y) {
  return less(y, x);
}

bool is_at_least(value_ref x, value_ref y) {
  return !less(x, y);
}

bool is_divisible(value_ref x, value_ref y) {
  auto by = whole(y);
  if (by == 0)
    fail("divisibleby needs another number");
  return by == -1 || whole(x) % by == 0;
}

bool is_same(value_ref x, value_ref y) {
  return kind_of(x) == kind_of(y) && equal(x, y);
}

/// What has items and a length.
bool is_sequence(value_ref x, value_ref) {
  return x.text() || x.items() || x.map() || x.is_undefined();
}

bool is_callable(value_ref x, value_ref) {
  return x.function() || x.loop() || x.joiner();
}

bool is_lower_text(value_ref x, value_ref) {
  return is_lower(printed(x));
}

bool is_upper_text(value_ref x, value_ref) {
  return is_upper(printed(x));
}

const std::map<std::string_view, test, std::less<>>& tests() {
  using v = value_ref;
  static const std::map<std::string_view, test, std::less<>> table{
      {"!=", {true, is_not_equal}},
      {"<", {true, is_less}},
      {"<=", {true, is_at_most}},
      {"==", {true, is_equal}},
      {">", {true, is_greater}},
      {">=", {true, is_at_least}},
      {"boolean", {false, [](v x, v) { return x.get<bool>() != nullptr; }}},
      {"callable", {false, is_callable}},
      {"defined", {false, [](v x, v) { return !x.is_undefined(); }}},
      {"divisibleby", {true, is_divisible}},
      {"eq", {true, is_equal}},
      {"equalto", {true, is_equal}},
      {"escaped",
       {false, [](v x, v) { return x.text() && x.text()->is_markup(); }}},
      {"even", {false, [](v x, v) { return whole(x) % 2 == 0; }}},
      {"false", {false, [](v x, v) { return x.get<bool>() && !truth(x); }}},
      {"filter",
       {false, [](v x, v) { return x.text() && is_filter(x.text()->text()); }}},
      {"float", {false, [](v x, v) { return x.get<double>() != nullptr; }}},
      {"ge", {true, is_at_least}},
      {"greaterthan", {true, is_greater}},
      {"gt", {true, is_greater}},
      {"in", {true, [](v x, v y) { return contains(y, x); }}},
      {"integer",
       {false, [](v x, v) { return x.get<std::int64_t>() != nullptr; }}},
      {"iterable", {false, is_sequence}},
      {"le", {true, is_at_most}},
      {"lessthan", {true, is_less}},
      {"lower", {false, is_lower_text}},
      {"lt", {true, is_less}},
      {"mapping", {false, [](v x, v) { return x.map() != nullptr; }}},
      {"ne", {true, is_not_equal}},
      {"none", {false, [](v x, v) { return x.is_none(); }}},
      {"number", {false, [](v x, v) { return x.number().has_value(); }}},
      {"odd", {false, [](v x, v) { return whole(x) % 2 != 0; }}},
      {"sameas", {true, is_same}},
      {"sequence", {false, is_sequence}},
      {"string", {false, [](v x, v) { return x.text() != nullptr; }}},
      {"test",
       {false, [](v x, v) { return x.text() && is_test(x.text()->text()); }}},
      {"true", {false, [](v x, v) { return x.get<bool>() && truth(x); }}},
      {"undefined", {false, [](v x, v) { return x.is_undefined(); }}},
      {"upper", {false, is_upper_text}},
  };
  return table;
}

} // namespace

bool contains(const runtime_value& whole, const runtime_value& part) {
  if (const auto* text = whole.text()) {
    if (part.text() == nullptr)
      fail("\"in\" a text needs a text on its left");
    return text->text().find(part.text()->text()) != std::string::npos;
  }
  if (const auto* map = whole.map())
    return map->find(part) != nullptr;
  auto items = iterate(whole);
  return std::any_of(items->begin(), items->end(),
                     [&](const auto& item) { return equal(item, part); });
}

bool is_test(std::string_view name) {
  return tests().contains(name);
}

bool test_takes_argument(std::string_view name) {
  auto found = tests().find(name);
  return found != tests().end() && found->second.takes_argument;
}

bool apply_test(meter& cost, std::string_view name, const runtime_value& input,
                const call_arguments& args) {
  const auto& test = tests().find(name)->second;
  constexpr std::array<std::string_view, 1> parameters{"other"};
  check_arguments(args, name,
                  std::span{parameters}.first(test.takes_argument ? 1 : 0));
  const auto* other = args.find(0, "other");
  if (test.takes_argument && other == nullptr)
    fail("the test " + std::string{name} + " needs an argument");
  static const runtime_value nothing;
  if (test.takes_argument)
    cost.spend(weight_of(input) / 64 + weight_of(*other) / 64);
  return test.holds(input, other ? *other : nothing);
}

} // namespace troupe::text::jinja
