#include "engine/text/jinja/parser.hpp"

#include "engine/text/jinja/builtins.hpp"
#include "engine/text/jinja/lexer.hpp"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <set>

namespace troupe::text::jinja {

namespace {

/// Thrown inside the parser only; `parse` turns it into a value.
struct syntax_error {
  int line;
  std::string message;
};

class parser {
public:
  parser(std::vector<token> tokens, std::size_t depth_max)
      : tokens_(std::move(tokens)), depth_max_(depth_max) {
    // nop
  }

  block run() {
    auto out = statements({});
    if (now().type != token_type::end)
      fail("unexpected end tag");
    for (const auto& [called, line] : called_)
      if (!is_function(called) && !bound_.contains(called))
        throw syntax_error{line, "unknown function \"" + called + "\""};
    return out;
  }

private:
  /// Counts nesting while it lives.
  class nested {
  public:
    explicit nested(parser& in) : in_(in) {
      if (++in_.depth_ > in_.depth_max_)
        in_.fail("nested too deeply");
    }
    nested(const nested&) = delete;
    ~nested() {
      --in_.depth_;
    }

  private:
    parser& in_;
  };

  [[noreturn]] void fail(std::string message) const {
    throw syntax_error{now().line, std::move(message)};
  }

  const token& now() const {
    return tokens_[at_];
  }

  const token& peek() const {
    return tokens_[std::min(at_ + 1, tokens_.size() - 1)];
  }

  token take() {
    auto out = tokens_[at_];
    if (at_ + 1 < tokens_.size())
      ++at_;
    return out;
  }

  static bool is_word(const token& t, std::string_view word) {
    return t.type == token_type::name && t.value == word;
  }

  bool at_symbol(std::string_view symbol) const {
    return now().type == token_type::symbol && now().value == symbol;
  }

  bool accept(std::string_view symbol) {
    if (!at_symbol(symbol))
      return false;
    take();
    return true;
  }

  bool accept_word(std::string_view word) {
    if (!is_word(now(), word))
      return false;
    take();
    return true;
  }

  void expect(std::string_view symbol) {
    if (!accept(symbol))
      fail("expected \"" + std::string{symbol} + "\"" + found());
  }

  void expect_close() {
    if (now().type != token_type::block_close)
      fail("expected the end of the tag" + found());
    take();
  }

  std::string found() const {
    switch (now().type) {
    case token_type::name:
    case token_type::symbol:
      return ", found \"" + now().value + "\"";
    case token_type::output_close:
    case token_type::block_close:
      return ", found the end of the tag";
    default:
      return "";
    }
  }

  std::string name() {
    static const std::set<std::string_view> reserved{
        "and", "or",   "not",   "in",   "is",   "if",    "else", "elif",
        "for", "true", "false", "none", "True", "False", "None"};
    if (now().type != token_type::name || reserved.contains(now().value))
      fail("expected a name" + found());
    return take().value;
  }

  /// A name that the template gives a value: it may be called.
  std::string bound_name() {
    return *bound_.insert(name()).first;
  }

  // -- statements -------------------------------------------------------------

  block statements(std::initializer_list<std::string_view> ends);
  block body(std::string_view end);
  statement tag();
  /// Every operator and postfix nests the tree one deeper; bounds that per tag,
  /// so that walking and freeing the tree need a bounded stack.
  void count_link() {
    if (++links_ > links_max)
      fail("too many operators in one tag");
  }

  static constexpr std::size_t links_max = 500;

  if_statement if_tag();
  for_statement for_tag();
  set_statement set_tag();
  macro_statement macro_tag();
  call_statement call_tag();
  filter_statement filter_tag();
  scope_block with_tag();
  void parameters(macro_definition& out);
  void macro_body(macro_definition& out, std::string_view end);
  expression_ptr block_filters();

  bool at_end_tag(std::initializer_list<std::string_view> ends) const {
    return now().type == token_type::block_open &&
           std::any_of(ends.begin(), ends.end(),
                       [&](auto end) { return is_word(peek(), end); });
  }

  // -- expressions, loosest first ---------------------------------------------

  template <class T>
  expression_ptr make(int line, T what) {
    auto out = std::make_unique<expression>();
    out->line = line;
    out->what = std::move(what);
    return out;
  }

  expression_ptr tuple_or_one();
  expression_ptr conditional_expression();
  expression_ptr or_expression();
  expression_ptr and_expression();
  expression_ptr not_expression();
  expression_ptr comparison();
  expression_ptr sum();
  expression_ptr concatenation();
  expression_ptr product();
  expression_ptr power();
  expression_ptr unary_expression(bool filters);
  expression_ptr postfix(expression_ptr, bool filters);
  expression_ptr primary();
  expression_ptr brackets(expression_ptr object);
  expression_ptr call_of(expression_ptr callee);
  expression_ptr filter_of(expression_ptr input);
  expression_ptr test_of(expression_ptr input);
  expression_ptr used_name();
  arguments call_arguments();

  std::vector<token> tokens_;
  std::size_t at_ = 0;
  std::size_t depth_ = 0;
  std::size_t links_ = 0;
  std::size_t depth_max_;
  std::set<std::string, std::less<>> bound_{"caller", "loop"};
  std::vector<std::pair<std::string, int>> called_;
  std::vector<macro_definition*> open_macros_;
};

block parser::statements(std::initializer_list<std::string_view> ends) {
  nested guard{*this};
  block out;
  for (;;) {
    auto line = now().line;
    switch (now().type) {
    case token_type::text:
      out.push_back({line, text_output{take().value}});
      break;
    case token_type::output_open: {
      take();
      links_ = 0;
      auto value = tuple_or_one();
      if (now().type != token_type::output_close)
        fail("expected \"}}\"" + found());
      take();
      out.push_back({line, expression_output{std::move(value)}});
      break;
    }
    case token_type::block_open:
      if (at_end_tag(ends))
        return out;
      out.push_back(tag());
      break;
    default:
      if (ends.size() != 0)
        fail("the tag {% " + std::string{*(ends.end() - 1)} + " %} is missing");
      return out;
    }
  }
}

block parser::body(std::string_view end) {
  expect_close();
  auto out = statements({end});
  take();
  take();
  expect_close();
  return out;
}

statement parser::tag() {
  auto line = now().line;
  take();
  links_ = 0;
  auto word = now().type == token_type::name ? take().value : std::string{};
  if (word == "if")
    return {line, if_tag()};
  if (word == "for")
    return {line, for_tag()};
  if (word == "set")
    return {line, set_tag()};
  if (word == "macro")
    return {line, macro_tag()};
  if (word == "call")
    return {line, call_tag()};
  if (word == "filter")
    return {line, filter_tag()};
  if (word == "with")
    return {line, with_tag()};
  if (word == "generation")
    return {line, scope_block{{}, body("endgeneration")}};
  if (word == "break" || word == "continue") {
    expect_close();
    if (word == "break")
      return {line, break_statement{}};
    return {line, continue_statement{}};
  }
  fail("unknown tag {% " + word + " %}");
}

if_statement parser::if_tag() {
  if_statement out;
  for (;;) {
    auto condition = conditional_expression();
    expect_close();
    out.branches.emplace_back(std::move(condition),
                              statements({"elif", "else", "endif"}));
    take();
    auto word = take().value;
    if (word == "elif")
      continue;
    if (word == "else") {
      expect_close();
      out.otherwise = statements({"endif"});
      take();
      take();
    }
    expect_close();
    return out;
  }
}

for_statement parser::for_tag() {
  for_statement out;
  auto parenthesis = accept("(");
  do
    out.targets.push_back(bound_name());
  while (accept(","));
  if (parenthesis)
    expect(")");
  if (!accept_word("in"))
    fail("expected \"in\"" + found());
  out.over = or_expression();
  if (at_symbol(",")) {
    list_literal items;
    items.tuple = true;
    items.items.push_back(std::move(out.over));
    while (accept(","))
      items.items.push_back(or_expression());
    out.over = make(now().line, std::move(items));
  }
  if (accept_word("if"))
    out.condition = conditional_expression();
  out.recursive = accept_word("recursive");
  expect_close();
  out.body = statements({"else", "endfor"});
  take();
  if (take().value == "else") {
    expect_close();
    out.otherwise = statements({"endfor"});
    take();
    take();
  }
  expect_close();
  return out;
}

set_statement parser::set_tag() {
  set_statement out;
  out.targets.push_back(bound_name());
  if (accept(".")) {
    out.attribute = name();
  } else {
    while (accept(","))
      out.targets.push_back(bound_name());
  }
  if (accept("=")) {
    out.value = tuple_or_one();
    expect_close();
    return out;
  }
  if (out.targets.size() != 1)
    fail("expected \"=\"" + found());
  if (accept("|"))
    out.filter = block_filters();
  out.body = body("endset");
  return out;
}

/// (a, b=1)
void parser::parameters(macro_definition& out) {
  expect("(");
  while (!accept(")")) {
    auto parameter = bound_name();
    expression_ptr fallback;
    if (accept("="))
      fallback = conditional_expression();
    else if (parameter == "caller")
      fail("the parameter caller needs a default");
    else if (!out.parameters.empty() && out.parameters.back().second)
      fail("a parameter without default behind one with");
    out.parameters.emplace_back(std::move(parameter), std::move(fallback));
    if (!at_symbol(")"))
      expect(",");
  }
}

void parser::macro_body(macro_definition& out, std::string_view end) {
  open_macros_.push_back(&out);
  out.body = body(end);
  open_macros_.pop_back();
}

macro_statement parser::macro_tag() {
  auto out = std::make_shared<macro_definition>();
  out->name = bound_name();
  parameters(*out);
  macro_body(*out, "endmacro");
  return {std::move(out)};
}

call_statement parser::call_tag() {
  auto caller = std::make_shared<macro_definition>();
  caller->name = "caller";
  if (at_symbol("("))
    parameters(*caller);
  auto value = conditional_expression();
  auto* what = std::get_if<call>(&value->what);
  if (what == nullptr || std::holds_alternative<attribute>(what->callee->what))
    fail("{% call %} needs the call of a macro");
  call_statement out{std::move(*what), nullptr};
  macro_body(*caller, "endcall");
  out.caller = std::move(caller);
  return out;
}

filter_statement parser::filter_tag() {
  filter_statement out;
  out.filter = block_filters();
  out.body = body("endfilter");
  return out;
}

scope_block parser::with_tag() {
  scope_block out;
  while (now().type != token_type::block_close) {
    if (!out.names.empty())
      expect(",");
    auto target = bound_name();
    expect("=");
    out.names.emplace_back(std::move(target), conditional_expression());
  }
  out.body = body("endwith");
  return out;
}

/// a | b(1) of {% filter %} and {% set %}.
expression_ptr parser::block_filters() {
  auto out = filter_of(nullptr);
  while (accept("|")) {
    count_link();
    out = filter_of(std::move(out));
  }
  return out;
}

expression_ptr parser::tuple_or_one() {
  auto line = now().line;
  auto first = conditional_expression();
  if (!at_symbol(","))
    return first;
  list_literal out;
  out.tuple = true;
  out.items.push_back(std::move(first));
  while (accept(",")) {
    if (now().type == token_type::block_close ||
        now().type == token_type::output_close || at_symbol(")"))
      break;
    out.items.push_back(conditional_expression());
  }
  return make(line, std::move(out));
}

expression_ptr parser::conditional_expression() {
  nested guard{*this};
  auto line = now().line;
  auto value = or_expression();
  while (accept_word("if")) {
    count_link();
    conditional out;
    out.then = std::move(value);
    out.condition = or_expression();
    if (accept_word("else"))
      out.otherwise = conditional_expression();
    value = make(line, std::move(out));
  }
  return value;
}

expression_ptr parser::or_expression() {
  auto left = and_expression();
  while (is_word(now(), "or")) {
    count_link();
    auto line = take().line;
    left = make(
        line, binary{binary_op::logical_or, std::move(left), and_expression()});
  }
  return left;
}

expression_ptr parser::and_expression() {
  auto left = not_expression();
  while (is_word(now(), "and")) {
    count_link();
    auto line = take().line;
    left = make(line, binary{binary_op::logical_and, std::move(left),
                             not_expression()});
  }
  return left;
}

expression_ptr parser::not_expression() {
  if (!is_word(now(), "not"))
    return comparison();
  nested guard{*this};
  auto line = take().line;
  return make(line, unary{unary::op::invert, not_expression()});
}

expression_ptr parser::comparison() {
  auto line = now().line;
  comparison_chain out;
  out.first = sum();
  constexpr std::pair<std::string_view, binary_op> operators[] = {
      {"==", binary_op::equal},      {"!=", binary_op::not_equal},
      {"<=", binary_op::less_equal}, {">=", binary_op::greater_equal},
      {"<", binary_op::less},        {">", binary_op::greater}};
  for (;;) {
    auto found = std::find_if(std::begin(operators), std::end(operators),
                              [&](auto& op) { return at_symbol(op.first); });
    if (found != std::end(operators)) {
      take();
      out.rest.emplace_back(found->second, sum());
    } else if (accept_word("in")) {
      out.rest.emplace_back(binary_op::in, sum());
    } else if (is_word(now(), "not") && is_word(peek(), "in")) {
      take();
      take();
      out.rest.emplace_back(binary_op::not_in, sum());
    } else {
      break;
    }
  }
  if (out.rest.empty())
    return std::move(out.first);
  return make(line, std::move(out));
}

expression_ptr parser::sum() {
  auto left = concatenation();
  while (at_symbol("+") || at_symbol("-")) {
    count_link();
    auto op = take();
    left = make(op.line,
                binary{op.value == "+" ? binary_op::add : binary_op::subtract,
                       std::move(left), concatenation()});
  }
  return left;
}

expression_ptr parser::concatenation() {
  auto left = product();
  while (at_symbol("~")) {
    count_link();
    auto line = take().line;
    left = make(line, binary{binary_op::concat, std::move(left), product()});
  }
  return left;
}

expression_ptr parser::product() {
  auto left = power();
  for (;;) {
    binary_op op;
    if (at_symbol("*"))
      op = binary_op::multiply;
    else if (at_symbol("/"))
      op = binary_op::divide;
    else if (at_symbol("//"))
      op = binary_op::floor_divide;
    else if (at_symbol("%"))
      op = binary_op::modulo;
    else
      return left;
    count_link();
    auto line = take().line;
    left = make(line, binary{op, std::move(left), power()});
  }
}

expression_ptr parser::power() {
  auto base = unary_expression(true);
  while (at_symbol("**")) {
    count_link();
    auto line = take().line;
    base = make(line, binary{binary_op::power, std::move(base),
                             unary_expression(true)});
  }
  return base;
}

/// In Jinja a sign binds closer than "**", and filters see the signed value.
expression_ptr parser::unary_expression(bool filters) {
  nested guard{*this};
  if (!at_symbol("-") && !at_symbol("+"))
    return postfix(primary(), filters);
  auto op = take();
  auto sign = op.value == "-" ? unary::op::negate : unary::op::plus;
  return postfix(make(op.line, unary{sign, unary_expression(false)}), filters);
}

/// Attributes, subscripts and calls; with `filters` also filters and tests.
expression_ptr parser::postfix(expression_ptr value, bool filters) {
  for (;; count_link()) {
    auto line = now().line;
    if (accept(".")) {
      if (now().type == token_type::integer)
        value = make(line, subscript{std::move(value), primary()});
      else if (now().type != token_type::name)
        fail("expected a name" + found());
      else
        value = make(line, attribute{std::move(value), take().value});
    } else if (accept("[")) {
      value = brackets(std::move(value));
    } else if (at_symbol("(")) {
      value = call_of(std::move(value));
    } else if (filters && accept("|")) {
      value = filter_of(std::move(value));
    } else if (filters && is_word(now(), "is")) {
      value = test_of(std::move(value));
    } else {
      return value;
    }
  }
}

expression_ptr parser::brackets(expression_ptr object) {
  auto line = now().line;
  expression_ptr parts[3];
  auto colons = 0;
  while (!at_symbol("]")) {
    if (accept(":")) {
      if (++colons > 2)
        fail("a slice has at most two colons");
    } else {
      if (parts[colons])
        fail("expected \"]\"" + found());
      parts[colons] = conditional_expression();
    }
  }
  expect("]");
  if (colons > 0)
    return make(line, slice{std::move(object), std::move(parts[0]),
                            std::move(parts[1]), std::move(parts[2])});
  if (!parts[0])
    fail("expected an index");
  return make(line, subscript{std::move(object), std::move(parts[0])});
}

expression_ptr parser::call_of(expression_ptr callee) {
  auto line = now().line;
  if (const auto* use = std::get_if<name_use>(&callee->what)) {
    called_.emplace_back(use->name, line);
  } else if (const auto* method = std::get_if<attribute>(&callee->what)) {
    if (!is_method(method->name))
      fail("unknown method \"" + method->name + "\"");
  } else {
    fail("only functions, macros and methods can be called");
  }
  return make(line, call{std::move(callee), call_arguments()});
}

/// The filter whose name comes next.
expression_ptr parser::filter_of(expression_ptr input) {
  auto line = now().line;
  filter_use out;
  out.input = std::move(input);
  out.name = name();
  if (!is_filter(out.name))
    fail("unknown filter \"" + out.name + "\"");
  if (at_symbol("("))
    out.args = call_arguments();
  return make(line, std::move(out));
}

expression_ptr parser::test_of(expression_ptr input) {
  auto line = take().line;
  test_use out;
  out.input = std::move(input);
  out.negated = accept_word("not");
  if (now().type != token_type::name)
    fail("expected a test" + found());
  out.name = take().value;
  if (!is_test(out.name))
    fail("unknown test \"" + out.name + "\"");
  if (at_symbol("(")) {
    out.args = call_arguments();
  } else if (test_takes_argument(out.name)) {
    out.args.positional.push_back(postfix(primary(), false));
  }
  return make(line, std::move(out));
}

arguments parser::call_arguments() {
  nested guard{*this};
  arguments out;
  expect("(");
  while (!accept(")")) {
    auto spread = !out.more_positional && !out.more_named;
    if (spread && accept("*")) {
      out.more_positional = conditional_expression();
    } else if (!out.more_named && accept("**")) {
      out.more_named = conditional_expression();
    } else if (now().type == token_type::name &&
               peek().type == token_type::symbol && peek().value == "=") {
      auto key = name();
      take();
      out.named.emplace_back(std::move(key), conditional_expression());
    } else {
      if (!out.named.empty() || !spread)
        fail("a positional argument behind a named one");
      out.positional.push_back(conditional_expression());
    }
    if (!at_symbol(")"))
      expect(",");
  }
  return out;
}

expression_ptr parser::primary() {
  nested guard{*this};
  auto line = now().line;
  auto t = now();
  if (t.type == token_type::string) {
    std::string text;
    while (now().type == token_type::string) // neighbours are one string
      text += take().value;
    return make(line, std::move(text));
  }
  if (t.type == token_type::integer) {
    std::int64_t number = 0;
    take();
    auto end = t.value.data() + t.value.size();
    if (std::from_chars(t.value.data(), end, number).ec != std::errc{})
      fail("the number " + t.value + " is too large");
    return make(line, number);
  }
  if (t.type == token_type::floating) {
    double number = 0;
    take();
    std::from_chars(t.value.data(), t.value.data() + t.value.size(), number);
    return make(line, number);
  }
  if (t.type == token_type::name) {
    if (t.value == "true" || t.value == "True" || t.value == "false" ||
        t.value == "False") {
      take();
      return make(line, t.value == "true" || t.value == "True");
    }
    if (t.value == "none" || t.value == "None") {
      take();
      return make(line, none_literal{});
    }
    return used_name();
  }
  if (accept("(")) {
    if (accept(")"))
      return make(line, list_literal{{}, true});
    auto value = tuple_or_one();
    expect(")");
    return value;
  }
  if (accept("[")) {
    list_literal out;
    while (!accept("]")) {
      out.items.push_back(conditional_expression());
      if (!at_symbol("]"))
        expect(",");
    }
    return make(line, std::move(out));
  }
  if (accept("{")) {
    dict_literal out;
    while (!accept("}")) {
      auto key = conditional_expression();
      expect(":");
      out.items.emplace_back(std::move(key), conditional_expression());
      if (!at_symbol("}"))
        expect(",");
    }
    return make(line, std::move(out));
  }
  fail("expected a value" + found());
}

expression_ptr parser::used_name() {
  auto line = now().line;
  auto used = name();
  for (auto* macro : open_macros_) {
    macro->takes_caller |= used == "caller";
    macro->takes_varargs |= used == "varargs";
    macro->takes_kwargs |= used == "kwargs";
  }
  return make(line, name_use{std::move(used)});
}

} // namespace

result<block> parse(std::string_view source, std::size_t depth_max) {
  auto tokens = tokenize(source);
  if (!tokens)
    return tokens.error();
  try {
    return parser{std::move(*tokens), depth_max}.run();
  } catch (const syntax_error& e) {
    return error{errc::invalid_argument,
                 "line " + std::to_string(e.line) + ": " + e.message};
  }
}

} // namespace troupe::text::jinja
