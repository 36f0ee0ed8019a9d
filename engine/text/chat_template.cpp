#include "engine/text/chat_template.hpp"

#include "engine/text/jinja/builtins.hpp"
#include "engine/text/jinja/parser.hpp"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <map>
#include <optional>
#include <utility>

namespace troupe::text {

namespace {

using namespace jinja;

constexpr std::size_t range_items_max = 100'000;
constexpr std::size_t stack_depth_max = 1500; ///< evaluations inside each other
constexpr std::size_t source_bytes_max = 1u << 20;

/// Runs one rendering of a parsed template.
class renderer final : public meter {
public:
  renderer(const value::map& globals, const template_limits& limits)
      : limits_(limits) {
    scopes_.emplace_back();
    for (const auto& [name, given] : globals)
      scopes_.front().insert_or_assign(name, to_runtime(given));
    scopes_.emplace_back();
  }

  marked_string run(const block& program) {
    execute(program);
    return std::move(out_);
  }

  void spend(std::size_t operations) override {
    operations_ += operations;
    if (operations_ > limits_.operations_max)
      throw render_error{errc::limit, "the chat template runs too long"};
  }

  void check_bytes(std::size_t bytes) override {
    if (bytes > limits_.output_bytes_max)
      throw render_error{errc::limit, "the chat template's output is too long"};
  }

private:
  using scope = std::map<std::string, runtime_value, std::less<>>;
  enum class flow { next, leave_loop, next_round };

  /// Counts what is inside of what while it lives.
  class nested {
  public:
    explicit nested(renderer& in) : in_(in) {
      if (++in_.depth_ > stack_depth_max)
        throw render_error{errc::limit, "the chat template nests too deeply"};
      in_.spend(1);
    }
    nested(const nested&) = delete;
    ~nested() {
      --in_.depth_;
    }

  private:
    renderer& in_;
  };

  void emit(const marked_string& text) {
    check_bytes(out_.size() + text.size());
    spend(text.size() / 64);
    out_.append(text);
  }

  /// Output of `body` instead of adding it to the rendering.
  template <class F>
  marked_string captured(F body) {
    auto before = std::exchange(out_, {});
    body();
    return std::exchange(out_, std::move(before));
  }

  const runtime_value* lookup(std::string_view name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
      if (auto found = scope->find(name); found != scope->end())
        return &found->second;
    return nullptr;
  }

  void assign(const std::string& name, runtime_value v) {
    scopes_.back().insert_or_assign(name, std::move(v));
  }

  void assign_all(const std::vector<std::string>& names,
                  const runtime_value& v) {
    if (names.size() == 1) {
      assign(names[0], v);
      return;
    }
    auto items = iterate(v);
    if (items->size() != names.size())
      fail("cannot part " + std::to_string(items->size()) + " items into " +
           std::to_string(names.size()) + " names");
    for (std::size_t i = 0; i < names.size(); ++i)
      assign(names[i], (*items)[i]);
  }

  // -- statements -------------------------------------------------------------

  flow execute(const block& program) {
    nested guard{*this};
    for (const auto& step : program) {
      spend(1);
      auto next =
          std::visit([&](const auto& s) { return run_one(s); }, step.what);
      if (next != flow::next)
        return next;
    }
    return flow::next;
  }

  flow run_one(const text_output& s) {
    emit(marked_string{s.text});
    return flow::next;
  }

  flow run_one(const expression_output& s) {
    emit(printed(evaluate(*s.value)));
    return flow::next;
  }

  flow run_one(const if_statement& s) {
    for (const auto& [condition, body] : s.branches)
      if (truth(evaluate(*condition)))
        return execute(body);
    return execute(s.otherwise);
  }

  flow run_one(const for_statement& s);

  flow run_one(const set_statement& s) {
    auto v = s.value ? evaluate(*s.value)
                     : make_text(captured([&] { execute(s.body); }));
    if (s.attribute.empty()) {
      assign_all(s.targets, v);
      return flow::next;
    }
    const auto* target = lookup(s.targets[0]);
    auto* fields = target ? target->get<std::shared_ptr<dict>>() : nullptr;
    if (fields == nullptr)
      fail("\"" + s.targets[0] + "\" is no namespace");
    depth_inside(v);
    (*fields)->set(marked_string{s.attribute}, std::move(v));
    return flow::next;
  }

  flow run_one(const macro_statement& s) {
    assign(s.macro->name, s.macro);
    return flow::next;
  }

  flow run_one(const plain_block& s) {
    return execute(s.body);
  }

  flow run_one(const break_statement&) {
    return flow::leave_loop;
  }

  flow run_one(const continue_statement&) {
    return flow::next_round;
  }

  // -- expressions ------------------------------------------------------------

  runtime_value evaluate(const expression& e) {
    nested guard{*this};
    return std::visit([&](const auto& x) { return value_of(x); }, e.what);
  }

  runtime_value value_of(const none_literal&) {
    return none{};
  }
  runtime_value value_of(bool x) {
    return x;
  }
  runtime_value value_of(std::int64_t x) {
    return x;
  }
  runtime_value value_of(double x) {
    return x;
  }
  runtime_value value_of(const std::string& x) {
    return make_text(x);
  }

  runtime_value value_of(const name_use& x) {
    if (const auto* found = lookup(x.name))
      return *found;
    if (is_function(x.name))
      return function_named(x.name);
    return undefined{x.name};
  }

  // A function is a value, too: templates ask whether it is there.
  static runtime_value function_named(const std::string& name) {
    auto out = std::make_shared<macro_definition>();
    out->name = name;
    out->is_builtin = true;
    return std::shared_ptr<const macro_definition>{std::move(out)};
  }

  runtime_value value_of(const list_literal& x) {
    list out;
    for (const auto& item : x.items)
      out.push_back(evaluate(*item));
    out.tuple = x.tuple;
    return make_list(std::move(out));
  }

  runtime_value value_of(const dict_literal& x) {
    dict out;
    for (const auto& [key, item] : x.items) {
      auto name = evaluate(*key);
      if (name.text() == nullptr)
        fail("keys of a dict must be texts");
      out.set(*name.text(), evaluate(*item));
    }
    return make_dict(std::move(out));
  }

  runtime_value value_of(const attribute& x) {
    return attribute_of(evaluate(*x.object), x.name);
  }

  runtime_value value_of(const subscript& x) {
    auto object = evaluate(*x.object);
    return item_of(object, evaluate(*x.index));
  }

  runtime_value value_of(const slice& x);
  runtime_value value_of(const call& x);

  runtime_value value_of(const filter_use& x) {
    auto input = evaluate(*x.input);
    return apply_filter(*this, x.name, input, evaluate(x.args));
  }

  runtime_value value_of(const test_use& x) {
    auto input = evaluate(*x.input);
    return apply_test(x.name, input, evaluate(x.args)) != x.negated;
  }

  runtime_value value_of(const unary& x);
  runtime_value value_of(const binary& x);

  runtime_value value_of(const comparison_chain& x) {
    auto left = evaluate(*x.first);
    for (const auto& [op, operand] : x.rest) {
      auto right = evaluate(*operand);
      if (!compare(op, left, right))
        return false;
      left = std::move(right);
    }
    return true;
  }

  runtime_value value_of(const conditional& x) {
    if (truth(evaluate(*x.condition)))
      return evaluate(*x.then);
    return x.otherwise ? evaluate(*x.otherwise)
                       : runtime_value{undefined{"the other branch of an if"}};
  }

  call_arguments evaluate(const arguments& args) {
    call_arguments out;
    for (const auto& arg : args.positional)
      out.positional.push_back(evaluate(*arg));
    for (const auto& [name, arg] : args.named)
      out.named.emplace_back(name, evaluate(*arg));
    return out;
  }

  bool compare(binary_op op, const runtime_value& a, const runtime_value& b) {
    switch (op) {
    case binary_op::equal:
      return equal(a, b);
    case binary_op::not_equal:
      return !equal(a, b);
    case binary_op::less:
      return less(a, b);
    case binary_op::less_equal:
      return !less(b, a);
    case binary_op::greater:
      return less(b, a);
    case binary_op::greater_equal:
      return !less(a, b);
    case binary_op::in:
    case binary_op::not_in: {
      call_arguments whole;
      whole.positional.push_back(b);
      return apply_test("in", a, whole) == (op == binary_op::in);
    }
    default:
      return false;
    }
  }

  runtime_value arithmetic(binary_op op, const runtime_value& a,
                           const runtime_value& b);
  runtime_value repeated(const runtime_value& what, std::int64_t times);
  runtime_value call_macro(const macro_definition& macro,
                           const call_arguments& args);
  runtime_value call_function(std::string_view name,
                              const call_arguments& args);
  runtime_value range(const call_arguments& args);
  runtime_value time_now(const call_arguments& args);

  const template_limits& limits_;
  std::vector<scope> scopes_; ///< globals, the template's, then inner ones
  marked_string out_;
  std::size_t operations_ = 0;
  std::size_t depth_ = 0;
  std::size_t macro_depth_ = 0;
};

renderer::flow renderer::run_one(const for_statement& s) {
  auto all = iterate(evaluate(*s.over));
  auto items = all;
  if (s.condition) {
    auto kept = std::make_shared<list>();
    for (const auto& item : *all) {
      scopes_.emplace_back();
      assign_all(s.targets, item);
      if (truth(evaluate(*s.condition)))
        kept->push_back(item);
      scopes_.pop_back();
    }
    items = kept;
  }
  if (items->empty())
    return execute(s.otherwise);
  for (std::size_t i = 0; i < items->size(); ++i) {
    scopes_.emplace_back();
    assign("loop", std::make_shared<const loop_state>(loop_state{items, i}));
    assign_all(s.targets, (*items)[i]);
    auto next = execute(s.body);
    scopes_.pop_back();
    if (next == flow::leave_loop)
      break;
  }
  return flow::next;
}

runtime_value renderer::value_of(const slice& x) {
  auto object = evaluate(*x.object);
  const auto* text = object.text();
  if (text == nullptr && object.items() == nullptr)
    fail("a value of kind " + std::string{kind_of(object)} + " has no slices");
  auto items = iterate(object);
  spend(items->size() / 16);
  auto size = static_cast<std::int64_t>(items->size());
  auto bound = [&](const expression_ptr& given, std::int64_t fallback) {
    if (!given)
      return fallback;
    auto v = evaluate(*given);
    if (v.is_none())
      return fallback;
    const auto* number = v.get<std::int64_t>();
    if (number == nullptr)
      fail("the bounds of a slice must be whole numbers");
    return *number;
  };
  auto step = bound(x.step, 1);
  if (step == 0)
    fail("the step of a slice must not be zero");
  step = std::clamp(step, -size - 1, size + 1);
  auto low = std::int64_t{step > 0 ? 0 : -1};
  auto high = step > 0 ? size : size - 1;
  auto place = [&](std::int64_t at) {
    return std::clamp(at < 0 ? std::max(at, -size - 1) + size : at, low, high);
  };
  auto from = x.from ? place(bound(x.from, 0)) : step > 0 ? low : high;
  auto to = step > 0 ? high : low;
  if (x.to)
    to = place(bound(x.to, size));
  list out;
  for (auto i = from; step > 0 ? i < to : i > to; i += step)
    out.push_back((*items)[static_cast<std::size_t>(i)]);
  if (text == nullptr)
    return make_list(std::move(out));
  marked_string joined;
  for (const auto& c : out)
    joined.append(*c.text());
  return make_text(std::move(joined));
}

runtime_value renderer::value_of(const call& x) {
  if (const auto* method = std::get_if<attribute>(&x.callee->what)) {
    auto object = evaluate(*method->object);
    return call_method(*this, object, method->name, evaluate(x.args));
  }
  const auto& name = std::get<name_use>(x.callee->what).name;
  auto args = evaluate(x.args);
  if (const auto* found = lookup(name)) {
    const auto* macro = found->get<std::shared_ptr<const macro_definition>>();
    if (macro == nullptr)
      fail("\"" + name + "\" is no function");
    auto kept = *macro; // the name may be set anew while it runs
    return kept->is_builtin ? call_function(kept->name, args)
                            : call_macro(*kept, args);
  }
  if (!is_function(name))
    fail("the macro \"" + name + "\" is not defined yet");
  return call_function(name, args);
}

/// A macro sees the globals and the template's own names, not its caller's.
runtime_value renderer::call_macro(const macro_definition& macro,
                                   const call_arguments& args) {
  if (++macro_depth_ > limits_.depth_max)
    throw render_error{errc::limit, "macros call each other too deeply"};
  if (args.positional.size() > macro.parameters.size())
    fail("the macro " + macro.name + " takes fewer arguments");
  std::vector<scope> inner{scopes_.begin() + 2, scopes_.end()};
  scopes_.resize(2);
  scopes_.emplace_back();
  for (std::size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, fallback] = macro.parameters[i];
    if (const auto* given = args.find(i, name))
      assign(name, *given);
    else
      assign(name,
             fallback ? evaluate(*fallback) : runtime_value{undefined{name}});
  }
  auto out = captured([&] { execute(macro.body); });
  scopes_.resize(2);
  for (auto& s : inner)
    scopes_.push_back(std::move(s));
  --macro_depth_;
  return make_text(std::move(out));
}

runtime_value renderer::call_function(std::string_view name,
                                      const call_arguments& args) {
  if (name == "raise_exception") {
    const auto* message = args.find(0, "message");
    fail(message ? printed(*message).text() : "the chat template refused");
  }
  if (name == "range")
    return range(args);
  if (name == "strftime_now")
    return time_now(args);
  auto fields = std::make_shared<dict>();
  if (!args.positional.empty())
    fail(std::string{name} + " takes named arguments only");
  for (const auto& [key, v] : args.named) {
    depth_inside(v);
    fields->set(marked_string{key}, v);
  }
  if (name == "namespace")
    return fields;
  return make_dict(std::move(*fields));
}

runtime_value renderer::range(const call_arguments& args) {
  std::int64_t bounds[3] = {0, 0, 1};
  auto count = args.positional.size();
  if (count < 1 || count > 3)
    fail("range takes one to three numbers");
  for (std::size_t i = 0; i < count; ++i) {
    const auto* number = args.positional[i].get<std::int64_t>();
    if (number == nullptr)
      fail("range takes whole numbers");
    bounds[count == 1 ? 1 : i] = *number;
  }
  auto [from, to, step] = bounds;
  if (step == 0)
    fail("the step of range must not be zero");
  list out;
  for (auto i = from; step > 0 ? i < to : i > to;) {
    if (out.size() == range_items_max)
      throw render_error{errc::limit, "range gives too many numbers"};
    spend(1);
    out.push_back(i);
    if (__builtin_add_overflow(i, step, &i))
      break;
  }
  return make_list(std::move(out));
}

/// The time comes from outside (seconds since 1970), so that a rendering is a
/// function of its input.
runtime_value renderer::time_now(const call_arguments& args) {
  const auto* format = args.find(0, "format");
  const auto* now = lookup("now_seconds");
  const auto* seconds = now ? now->get<std::int64_t>() : nullptr;
  if (seconds == nullptr || format == nullptr || format->text() == nullptr)
    fail("strftime_now needs a format and a clock");
  auto at = static_cast<std::time_t>(*seconds);
  std::tm parts{};
  localtime_r(&at, &parts);
  char text[256];
  auto size =
      std::strftime(text, sizeof text, format->text()->text().c_str(), &parts);
  return make_text(std::string_view{text, size});
}

runtime_value renderer::value_of(const unary& x) {
  auto v = evaluate(*x.operand);
  if (x.what == unary::op::invert)
    return !truth(v);
  if (const auto* d = v.get<double>())
    return x.what == unary::op::negate ? -*d : *d;
  const auto* i = v.get<std::int64_t>();
  if (i == nullptr || *i == INT64_MIN)
    fail("a sign needs a number");
  return x.what == unary::op::negate ? -*i : *i;
}

runtime_value renderer::value_of(const binary& x) {
  auto left = evaluate(*x.left);
  if (x.what == binary_op::logical_and)
    return truth(left) ? evaluate(*x.right) : left;
  if (x.what == binary_op::logical_or)
    return truth(left) ? left : evaluate(*x.right);
  auto right = evaluate(*x.right);
  if (x.what == binary_op::concat)
    return make_text(concatenate(*this, printed(left), printed(right)));
  return arithmetic(x.what, left, right);
}

runtime_value renderer::repeated(const runtime_value& what,
                                 std::int64_t times) {
  auto count = static_cast<std::size_t>(std::max<std::int64_t>(times, 0));
  if (const auto* text = what.text()) {
    if (!text->empty() && count > limits_.output_bytes_max / text->size())
      check_bytes(limits_.output_bytes_max + 1);
    spend(text->size() * count / 64);
    marked_string out;
    for (std::size_t i = 0; !text->empty() && i < count; ++i)
      out.append(*text);
    return make_text(std::move(out));
  }
  const auto* items = what.items();
  if (!items->empty() && count > limits_.operations_max / items->size())
    spend(limits_.operations_max + 1);
  spend(items->size() * count);
  list out;
  for (std::size_t i = 0; !items->empty() && i < count; ++i)
    out.insert(out.end(), items->begin(), items->end());
  return make_list(std::move(out));
}

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

runtime_value renderer::arithmetic(binary_op op, const runtime_value& a,
                                   const runtime_value& b) {
  for (const auto* side : {&a, &b})
    if (const auto* missing = side->get<undefined>())
      fail("\"" + missing->name + "\" is undefined");
  if (op == binary_op::add && a.text() && b.text())
    return make_text(concatenate(*this, *a.text(), *b.text()));
  if (op == binary_op::add && a.items() && b.items()) {
    auto out = *a.items();
    spend(out.size() + b.items()->size());
    out.insert(out.end(), b.items()->begin(), b.items()->end());
    return make_list(std::move(out));
  }
  auto as_whole = [](const runtime_value& v) -> std::optional<std::int64_t> {
    if (const auto* i = v.get<std::int64_t>())
      return *i;
    if (const auto* flag = v.get<bool>())
      return *flag ? 1 : 0;
    return std::nullopt;
  };
  auto i = as_whole(a);
  auto j = as_whole(b);
  if (op == binary_op::multiply && (a.text() || a.items()) && j)
    return repeated(a, *j);
  if (op == binary_op::multiply && (b.text() || b.items()) && i)
    return repeated(b, *i);
  if (i && j && op != binary_op::divide && !(op == binary_op::power && *j < 0))
    return whole_arithmetic(op, *i, *j);
  auto real = [](const runtime_value& v, std::optional<std::int64_t> whole) {
    if (whole)
      return std::optional{static_cast<double>(*whole)};
    const auto* d = v.get<double>();
    return d ? std::optional{*d} : std::nullopt;
  };
  auto x = real(a, i);
  auto y = real(b, j);
  if (!x || !y)
    fail("an operator does not fit values of kind " + std::string{kind_of(a)} +
         " and " + std::string{kind_of(b)});
  return real_arithmetic(op, *x, *y);
}

class compiled_template final : public chat_template {
public:
  compiled_template(block program, template_limits limits)
      : program_(std::move(program)), limits_(limits) {
    // nop
  }

  result<text_pieces> render(const value::map& globals) const override {
    try {
      return renderer{globals, limits_}.run(program_).pieces();
    } catch (const render_error& e) {
      return error{e.code, "chat template: " + e.message};
    }
  }

private:
  block program_;
  template_limits limits_;
};

} // namespace

result<std::shared_ptr<const chat_template>>
chat_template::compile(std::string_view source, template_limits limits) {
  if (source.size() > source_bytes_max)
    return error{errc::limit, "chat template: larger than 1 MiB"};
  auto program = jinja::parse(source, limits.depth_max);
  if (!program)
    return error{program.error().code,
                 "chat template, " + program.error().message};
  std::shared_ptr<const chat_template> out =
      std::make_shared<compiled_template>(std::move(*program), limits);
  return out;
}

} // namespace troupe::text
