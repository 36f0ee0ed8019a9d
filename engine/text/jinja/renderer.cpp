#include "engine/text/jinja/renderer.hpp"

#include "engine/text/jinja/arithmetic.hpp"
#include "engine/text/jinja/builtins.hpp"
#include "engine/text/jinja/text_operations.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace troupe::text::jinja {

namespace {

constexpr std::size_t stack_depth_max = 1500; ///< evaluations inside each other

class renderer final : public meter {
public:
  renderer(const value::map& globals, const template_limits& limits)
      : limits_(limits) {
    scopes_.push_back({{}, 0});
    for (const auto& [name, given] : globals)
      assign(name, to_runtime(given));
    scopes_.push_back({{}, 0}); // template_scope
  }

  marked_string run(const block& program) {
    execute(program);
    return std::move(out_);
  }

  void spend(std::size_t operations) override {
    if (operations > limits_.operations_max - operations_)
      throw render_error{errc::limit, "the chat template runs too long"};
    operations_ += operations;
  }

  void check_bytes(std::size_t bytes) override {
    if (bytes > limits_.output_bytes_max)
      throw render_error{errc::limit, "the chat template's output is too long"};
  }

private:
  /// Names, and the scope around them: that of the text, not of the caller.
  struct scope {
    std::map<std::string, runtime_value, std::less<>> names;
    std::size_t around;
  };
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

  /// What `body` returns, run in a scope of its own inside of `around`.
  template <class F>
  auto in_scope(std::size_t around, F body) {
    scopes_.push_back({{}, around});
    auto out = body();
    scopes_.pop_back();
    return out;
  }

  std::size_t here() const {
    return scopes_.size() - 1;
  }

  const runtime_value* lookup(std::string_view name) const {
    for (auto at = here();; at = scopes_[at].around) {
      const auto& names = scopes_[at].names;
      if (auto found = names.find(name); found != names.end())
        return &found->second;
      if (at == 0)
        return nullptr;
    }
  }

  void assign(const std::string& name, runtime_value v) {
    scopes_.back().names.insert_or_assign(name, std::move(v));
  }

  void assign_all(const std::vector<std::string>& names,
                  const runtime_value& v) {
    if (names.size() == 1) {
      assign(names[0], v);
      return;
    }
    auto items = iterate(*this, v);
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

  flow execute_inside(const block& program) {
    return in_scope(here(), [&] { return execute(program); });
  }

  flow run_one(const text_output& s) {
    emit(marked_string{s.text});
    return flow::next;
  }

  flow run_one(const expression_output& s) {
    emit(printed(*this, evaluate(*s.value)));
    return flow::next;
  }

  flow run_one(const if_statement& s) {
    for (const auto& [condition, body] : s.branches)
      if (truth(evaluate(*condition)))
        return execute(body);
    return execute(s.otherwise);
  }

  flow run_one(const for_statement& s) {
    return run_loop(s, evaluate(*s.over), 0, here());
  }

  flow run_one(const set_statement& s);

  flow run_one(const macro_statement& s) {
    assign(s.macro->name, function_of(s.macro));
    return flow::next;
  }

  flow run_one(const call_statement& s) {
    auto args = evaluate(s.what.args);
    args.named.emplace_back("caller", function_of(s.caller));
    emit(printed(*this, called(evaluate(*s.what.callee), args)));
    return flow::next;
  }

  flow run_one(const filter_statement& s) {
    auto body = captured([&] { execute_inside(s.body); });
    emit(printed(*this, filtered(*s.filter, make_text(std::move(body)))));
    return flow::next;
  }

  flow run_one(const scope_block& s) {
    std::vector<runtime_value> values;
    for (const auto& [name, v] : s.names)
      values.push_back(evaluate(*v));
    return in_scope(here(), [&] {
      for (std::size_t i = 0; i < values.size(); ++i)
        assign(s.names[i].first, std::move(values[i]));
      return execute(s.body);
    });
  }

  flow run_one(const break_statement&) {
    return flow::leave_loop;
  }

  flow run_one(const continue_statement&) {
    return flow::next_round;
  }

  flow run_loop(const for_statement& s, const runtime_value& over,
                std::size_t depth, std::size_t around);
  std::shared_ptr<const list> items_of(const for_statement& s,
                                       const runtime_value& over,
                                       std::size_t around);

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
    // A function is a value, too: templates ask whether it is there.
    if (is_function(x.name))
      return std::make_shared<const function_value>(
          function_value{x.name, nullptr, 0});
    return undefined{x.name};
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
      spend(out.entries.size() / 16);
      auto name = evaluate(*key);
      out.set(name, evaluate(*item));
    }
    return make_dict(std::move(out));
  }

  runtime_value value_of(const attribute& x) {
    return attribute_of(evaluate(*x.object), x.name);
  }

  runtime_value value_of(const subscript& x) {
    auto object = evaluate(*x.object);
    if (const auto* text = object.text())
      spend(text->size() / 64);
    return item_of(object, evaluate(*x.index));
  }

  runtime_value value_of(const slice& x);
  std::optional<std::int64_t> bound(const expression_ptr& given);
  std::vector<std::size_t> places_of(const slice& x, std::int64_t size);
  runtime_value value_of(const call& x);

  runtime_value value_of(const filter_use& x) {
    auto input = evaluate(*x.input);
    return apply_filter(*this, x.name, input, evaluate(x.args));
  }

  runtime_value value_of(const test_use& x) {
    auto input = evaluate(*x.input);
    return apply_test(*this, x.name, input, evaluate(x.args)) != x.negated;
  }

  runtime_value value_of(const unary& x) {
    auto v = evaluate(*x.operand);
    if (x.what == unary::op::invert)
      return !truth(v);
    return with_sign(v, x.what == unary::op::negate);
  }

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

  call_arguments evaluate(const arguments& args);
  bool compare(binary_op op, const runtime_value& a, const runtime_value& b);

  /// The filters of a block, the last one outermost.
  runtime_value filtered(const expression& e, const runtime_value& body) {
    nested guard{*this};
    const auto& x = std::get<filter_use>(e.what);
    auto input = x.input ? filtered(*x.input, body) : body;
    return apply_filter(*this, x.name, input, evaluate(x.args));
  }

  // -- calls ------------------------------------------------------------------

  runtime_value
  function_of(const std::shared_ptr<const macro_definition>& macro) const {
    return std::make_shared<const function_value>(
        function_value{macro->name, macro, here()});
  }

  runtime_value called(const runtime_value& what, const call_arguments& args);
  runtime_value call_macro(const function_value& f, const call_arguments& args);
  void take_arguments(const macro_definition& macro,
                      const call_arguments& args);
  runtime_value call_loop(const loop_state& loop, const call_arguments& args);

  /// The output of `body`, which calls itself 64 times at most.
  template <class F>
  runtime_value called_output(F body) {
    if (++call_depth_ > limits_.depth_max)
      throw render_error{errc::limit, "macros call each other too deeply"};
    auto out = captured(body);
    --call_depth_;
    return make_text(std::move(out));
  }

  const template_limits& limits_;
  std::vector<scope> scopes_; ///< globals, the template's, then inner ones
  marked_string out_;
  std::size_t operations_ = 0;
  std::size_t depth_ = 0;
  std::size_t call_depth_ = 0;
};

renderer::flow renderer::run_one(const set_statement& s) {
  auto v = runtime_value{};
  if (s.value) {
    v = evaluate(*s.value);
  } else {
    v = make_text(captured([&] { execute_inside(s.body); }));
    if (s.filter)
      v = filtered(*s.filter, v);
  }
  if (s.attribute.empty()) {
    assign_all(s.targets, v);
    return flow::next;
  }
  const auto* target = lookup(s.targets[0]);
  auto* fields = target ? target->get<std::shared_ptr<dict>>() : nullptr;
  if (fields == nullptr)
    fail("\"" + s.targets[0] + "\" is no namespace");
  depth_inside(v);
  spend((*fields)->entries.size() / 16);
  (*fields)->set(make_text(s.attribute), std::move(v));
  return flow::next;
}

std::shared_ptr<const list> renderer::items_of(const for_statement& s,
                                               const runtime_value& over,
                                               std::size_t around) {
  auto all = iterate(*this, over);
  if (!s.condition)
    return all;
  auto kept = std::make_shared<list>();
  for (const auto& item : *all)
    in_scope(around, [&] {
      assign_all(s.targets, item);
      if (truth(evaluate(*s.condition)))
        kept->push_back(item);
      return true;
    });
  return kept;
}

renderer::flow renderer::run_loop(const for_statement& s,
                                  const runtime_value& over, std::size_t depth,
                                  std::size_t around) {
  auto items = items_of(s, over, around);
  if (items->empty())
    return in_scope(around, [&] { return execute(s.otherwise); });
  auto loop = std::make_shared<loop_state>();
  loop->items = items;
  loop->depth = depth;
  loop->body = s.recursive ? &s : nullptr;
  loop->scope = around;
  for (; loop->index < items->size(); ++loop->index) {
    auto next = in_scope(around, [&] {
      assign("loop", loop);
      assign_all(s.targets, (*items)[loop->index]);
      return execute(s.body);
    });
    if (next == flow::leave_loop)
      break;
  }
  return flow::next;
}

std::optional<std::int64_t> renderer::bound(const expression_ptr& given) {
  auto v = given ? evaluate(*given) : runtime_value{none{}};
  auto number = v.whole();
  if (!number && !v.is_none())
    fail("the bounds of a slice must be whole numbers");
  return number;
}

/// The places that a slice takes of `size` items, as Python has it.
std::vector<std::size_t> renderer::places_of(const slice& x,
                                             std::int64_t size) {
  auto first = bound(x.from);
  auto last = bound(x.to);
  auto step = bound(x.step).value_or(1);
  if (step == 0)
    fail("the step of a slice must not be zero");
  step = std::clamp(step, -size - 1, size + 1);
  auto low = std::int64_t{step > 0 ? 0 : -1};
  auto high = step > 0 ? size : size - 1;
  auto place = [&](std::int64_t at) {
    return std::clamp(at < 0 ? std::max(at, -size - 1) + size : at, low, high);
  };
  auto from = first ? place(*first) : step > 0 ? low : high;
  auto to = last ? place(*last) : step > 0 ? high : low;
  std::vector<std::size_t> out;
  for (auto i = from; step > 0 ? i < to : i > to; i += step)
    out.push_back(static_cast<std::size_t>(i));
  spend(out.size() / 16);
  return out;
}

runtime_value renderer::value_of(const slice& x) {
  auto object = evaluate(*x.object);
  if (const auto* items = object.items()) {
    list out;
    out.tuple = items->tuple;
    for (auto at : places_of(x, static_cast<std::int64_t>(items->size())))
      out.push_back((*items)[at]);
    return make_list(std::move(out));
  }
  const auto* text = object.text();
  if (text == nullptr)
    fail("a value of kind " + std::string{kind_of(object)} + " has no slices");
  spend(text->size() / 64);
  std::vector<std::size_t> begins; // of characters
  for (std::size_t at = 0; at < text->size();
       at += character_size(text->text(), at))
    begins.push_back(at);
  begins.push_back(text->size());
  marked_string out;
  for (auto at : places_of(x, static_cast<std::int64_t>(begins.size()) - 1))
    out.append(text->slice(begins[at], begins[at + 1] - begins[at]));
  return make_text(std::move(out).as_markup(text->is_markup()));
}

runtime_value renderer::value_of(const call& x) {
  if (const auto* method = std::get_if<attribute>(&x.callee->what)) {
    auto object = evaluate(*method->object);
    return call_method(*this, object, method->name, evaluate(x.args));
  }
  auto callee = evaluate(*x.callee);
  return called(callee, evaluate(x.args));
}

runtime_value renderer::called(const runtime_value& what,
                               const call_arguments& args) {
  if (const auto* f = what.function())
    return f->macro
               ? call_macro(*f, args)
               : call_function(*this, f->name, args, lookup("now_seconds"));
  if (const auto* loop = what.loop())
    return call_loop(*loop, args);
  if (auto* joiner = what.joiner())
    return std::exchange(joiner->used, true) ? joiner->text : make_text("");
  if (const auto* missing = what.get<undefined>())
    fail("\"" + missing->name + "\" is undefined");
  fail("a value of kind " + std::string{kind_of(what)} + " cannot be called");
}

/// A macro sees the names around its text, not its caller's.
runtime_value renderer::call_macro(const function_value& f,
                                   const call_arguments& args) {
  auto macro = f.macro; // the name may be set anew while it runs
  return called_output([&, around = f.scope] {
    in_scope(around, [&] {
      take_arguments(*macro, args);
      return execute(macro->body);
    });
  });
}

void renderer::take_arguments(const macro_definition& macro,
                              const call_arguments& args) {
  auto count = macro.parameters.size();
  auto given = args.positional.size();
  if (given > count && !macro.takes_varargs)
    fail("the macro " + macro.name + " takes fewer arguments");
  auto named = args.named;
  auto take_named = [&](std::string_view name) -> std::optional<runtime_value> {
    auto found = std::find_if(named.begin(), named.end(), [&](const auto& arg) {
      return arg.first == name;
    });
    if (found == named.end())
      return std::nullopt;
    auto out = std::move(found->second);
    named.erase(found);
    return out;
  };
  std::vector<std::optional<runtime_value>> values;
  auto has_caller = false;
  for (std::size_t i = 0; i < count; ++i) {
    const auto& name = macro.parameters[i].first;
    values.push_back(i < given ? std::optional{args.positional[i]}
                               : take_named(name));
    has_caller |= name == "caller";
  }
  if (macro.takes_caller && !has_caller)
    assign("caller",
           take_named("caller").value_or(runtime_value{undefined{"caller"}}));
  if (!named.empty() && !macro.takes_kwargs)
    fail("the macro " + macro.name + " takes no argument " +
         named.front().first);
  if (macro.takes_kwargs) {
    dict rest;
    for (auto& [name, v] : named)
      rest.set(make_text(name), std::move(v));
    assign("kwargs", make_dict(std::move(rest)));
  }
  if (macro.takes_varargs) {
    list rest;
    for (auto i = count; i < given; ++i)
      rest.push_back(args.positional[i]);
    assign("varargs", make_tuple(std::move(rest)));
  }
  for (std::size_t i = 0; i < count; ++i) {
    const auto& [name, fallback] = macro.parameters[i];
    assign(name, values[i]  ? std::move(*values[i])
                 : fallback ? evaluate(*fallback)
                            : runtime_value{undefined{name}});
  }
}

/// loop(items) of a recursive loop: its body over these.
runtime_value renderer::call_loop(const loop_state& loop,
                                  const call_arguments& args) {
  if (loop.body == nullptr)
    fail("only a recursive loop can be called");
  if (args.positional.size() != 1 || !args.named.empty())
    fail("a recursive loop takes what it goes over");
  return called_output(
      [&, body = loop.body, depth = loop.depth + 1, around = loop.scope] {
        run_loop(*body, args.positional[0], depth, around);
      });
}

call_arguments renderer::evaluate(const arguments& args) {
  call_arguments out;
  for (const auto& arg : args.positional)
    out.positional.push_back(evaluate(*arg));
  for (const auto& [name, arg] : args.named)
    out.named.emplace_back(name, evaluate(*arg));
  if (args.more_positional) {
    auto more = iterate(*this, evaluate(*args.more_positional));
    spend(more->size());
    out.positional.insert(out.positional.end(), more->begin(), more->end());
  }
  if (args.more_named) {
    auto more = evaluate(*args.more_named);
    if (more.map() == nullptr)
      fail("** needs a dict");
    spend(more.map()->entries.size());
    for (const auto& [key, v] : more.map()->entries) {
      if (key.text() == nullptr || out.find(SIZE_MAX, key.text()->text()))
        fail("** needs a dict of texts that are not given otherwise");
      out.named.emplace_back(key.text()->text(), v);
    }
  }
  return out;
}

bool renderer::compare(binary_op op, const runtime_value& a,
                       const runtime_value& b) {
  spend(weight_of(a) / 64 + weight_of(b) / 64);
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
    return contains(b, a);
  case binary_op::not_in:
    return !contains(b, a);
  default:
    return false;
  }
}

runtime_value renderer::value_of(const binary& x) {
  auto left = evaluate(*x.left);
  if (x.what == binary_op::logical_and)
    return truth(left) ? evaluate(*x.right) : left;
  if (x.what == binary_op::logical_or)
    return truth(left) ? left : evaluate(*x.right);
  auto right = evaluate(*x.right);
  if (x.what != binary_op::concat)
    return arithmetic(*this, x.what, left, right);
  auto joined = concatenate(*this, printed(*this, left), printed(*this, right));
  return make_text(std::move(joined).as_markup(false));
}

} // namespace

marked_string render(const block& program, const value::map& globals,
                     const template_limits& limits) {
  return renderer{globals, limits}.run(program);
}

} // namespace troupe::text::jinja
