#include "engine/text/jinja/arithmetic.hpp"

#include "engine/text/jinja/formatting.hpp"
#include "engine/text/jinja/text_operations.hpp"

#include <algorithm>
#include <cmath>

namespace troupe::text::jinja {

namespace {

std::int64_t whole_arithmetic(binary_op op, std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  auto overflow = false;
  switch (op) {
  case binary_op::add:
    overflow = __builtin_add_overflow(a, b, &out);
    break;
  case binary_op::subtract:
    overflow = __builtin_sub_overflow(a, b, &out);
    break;
  case binary_op::multiply:
    overflow = __builtin_mul_overflow(a, b, &out);
    break;
  case binary_op::floor_divide:
  case binary_op::modulo: {
    if (b == 0)
      fail("division by zero");
    if (b == -1) { // INT64_MIN / -1 does not exist
      overflow = __builtin_sub_overflow(std::int64_t{0}, a, &out);
      if (op == binary_op::modulo)
        return 0;
      break;
    }
    auto quotient = a / b;
    auto rest = a % b;
    if (rest != 0 && (rest < 0) != (b < 0)) { // Python rounds down
      --quotient;
      rest += b;
    }
    out = op == binary_op::modulo ? rest : quotient;
    break;
  }
  default: { // power
    out = 1;
    for (std::int64_t i = 0; i < b && !overflow && out != 0; ++i) {
      overflow = __builtin_mul_overflow(out, a, &out);
      if (i > 64 && (a == 1 || a == -1))
        return a == 1 || b % 2 == 0 ? 1 : -1;
    }
  }
  }
  if (overflow)
    fail("a number is too large");
  return out;
}

double real_arithmetic(binary_op op, double a, double b) {
  switch (op) {
  case binary_op::add:
    return a + b;
  case binary_op::subtract:
    return a - b;
  case binary_op::multiply:
    return a * b;
  case binary_op::power:
    return std::pow(a, b);
  default:
    break;
  }
  if (b == 0)
    fail("division by zero");
  if (op == binary_op::divide)
    return a / b;
  auto quotient = std::floor(a / b);
  return op == binary_op::floor_divide ? quotient : a - quotient * b;
}

/// Python adds what follows a Markup, or stands before one, escaped.
marked_string added(meter& cost, const marked_string& a,
                    const marked_string& b) {
  if (!a.is_markup() && !b.is_markup())
    return concatenate(cost, a, b);
  return concatenate(cost, escaped(cost, a), escaped(cost, b));
}

runtime_value repeated(meter& cost, const runtime_value& what,
                       std::int64_t times) {
  auto count = static_cast<std::size_t>(std::max<std::int64_t>(times, 0));
  const auto* text = what.text();
  auto size = text ? text->size() : what.items()->size();
  std::size_t all = 0;
  if (__builtin_mul_overflow(size, count, &all))
    all = SIZE_MAX;
  if (text) {
    cost.check_bytes(all);
    cost.spend(all / 64);
    marked_string out;
    for (std::size_t i = 0; size > 0 && i < count; ++i)
      out.append(*text);
    return make_text(std::move(out).as_markup(text->is_markup()));
  }
  cost.spend(all);
  list out;
  out.tuple = what.items()->tuple;
  for (std::size_t i = 0; size > 0 && i < count; ++i)
    out.insert(out.end(), what.items()->begin(), what.items()->end());
  return make_list(std::move(out));
}

runtime_value both_lists(meter& cost, const list& a, const list& b) {
  if (a.tuple != b.tuple)
    fail("a list and a tuple cannot be added");
  cost.spend(a.size() + b.size());
  list out;
  out.tuple = a.tuple;
  out.insert(out.end(), a.begin(), a.end());
  out.insert(out.end(), b.begin(), b.end());
  return make_list(std::move(out));
}

} // namespace

runtime_value arithmetic(meter& cost, binary_op op, const runtime_value& a,
                         const runtime_value& b) {
  if (op == binary_op::modulo && a.text())
    return make_text(format_percent(cost, *a.text(), b));
  for (const auto* side : {&a, &b})
    if (const auto* missing = side->get<undefined>())
      fail("\"" + missing->name + "\" is undefined");
  if (op == binary_op::add && a.text() && b.text())
    return make_text(added(cost, *a.text(), *b.text()));
  if (op == binary_op::add && a.items() && b.items())
    return both_lists(cost, *a.items(), *b.items());
  auto i = a.whole();
  auto j = b.whole();
  if (op == binary_op::multiply && (a.text() || a.items()) && j)
    return repeated(cost, a, *j);
  if (op == binary_op::multiply && (b.text() || b.items()) && i)
    return repeated(cost, b, *i);
  if (i && j && op != binary_op::divide && !(op == binary_op::power && *j < 0))
    return whole_arithmetic(op, *i, *j);
  auto x = a.number();
  auto y = b.number();
  if (!x || !y)
    fail("an operator does not fit values of kind " + std::string{kind_of(a)} +
         " and " + std::string{kind_of(b)});
  return real_arithmetic(op, *x, *y);
}

runtime_value with_sign(const runtime_value& v, bool negative) {
  if (const auto* d = v.get<double>())
    return negative ? -*d : *d;
  auto i = v.whole();
  if (!i || *i == INT64_MIN)
    fail("a sign needs a number");
  return negative ? -*i : *i;
}

} // namespace troupe::text::jinja
