#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

// A template as a tree. Lines count from 1.

namespace troupe::text::jinja {

struct expression;
using expression_ptr = std::unique_ptr<expression>;

/// Arguments of a call, filter or test.
struct arguments {
  std::vector<expression_ptr> positional;
  std::vector<std::pair<std::string, expression_ptr>> named;
  expression_ptr more_positional; ///< of *list; may be null
  expression_ptr more_named;      ///< of **dict; may be null
};

struct none_literal {};
struct name_use {
  std::string name;
};
struct list_literal {
  std::vector<expression_ptr> items;
  bool tuple = false;
};
struct dict_literal {
  std::vector<std::pair<expression_ptr, expression_ptr>> items;
};
struct attribute {
  expression_ptr object;
  std::string name;
};
struct subscript {
  expression_ptr object;
  expression_ptr index;
};
struct slice {
  expression_ptr object;
  expression_ptr from, to, step; ///< any may be null
};
struct call {
  expression_ptr callee; ///< an attribute: a method
  arguments args;
};
struct filter_use {
  expression_ptr input; ///< null: what a block says
  std::string name;
  arguments args;
};
struct test_use {
  expression_ptr input;
  std::string name;
  arguments args;
  bool negated = false;
};
struct unary {
  enum class op { negate, plus, invert } what;
  expression_ptr operand;
};
enum class binary_op : std::uint8_t {
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  concat,
  equal,
  not_equal,
  less,
  less_equal,
  greater,
  greater_equal,
  in,
  not_in,
  logical_and,
  logical_or,
};
struct binary {
  binary_op what;
  expression_ptr left, right;
};
/// a < b < c: every neighbour pair, all must hold.
struct comparison_chain {
  expression_ptr first;
  std::vector<std::pair<binary_op, expression_ptr>> rest;
};
struct conditional {
  expression_ptr condition, then, otherwise; ///< otherwise may be null
};

struct expression {
  int line = 0;
  std::variant<none_literal, bool, std::int64_t, double, std::string, name_use,
               list_literal, dict_literal, attribute, subscript, slice, call,
               filter_use, test_use, unary, binary, comparison_chain,
               conditional>
      what;
};

struct statement;
using block = std::vector<statement>;

struct text_output {
  std::string text;
};
struct expression_output {
  expression_ptr value;
};
struct if_statement {
  std::vector<std::pair<expression_ptr, block>> branches;
  block otherwise;
};
struct for_statement {
  std::vector<std::string> targets;
  expression_ptr over;
  expression_ptr condition; ///< may be null
  block body;
  block otherwise;
  bool recursive = false;
};
/// {% set a, b = value %}, {% set ns.a = value %} or {% set a | filter
/// %}...{% endset %}.
struct set_statement {
  std::vector<std::string> targets;
  std::string attribute; ///< of targets[0]; empty = the name itself
  expression_ptr value;  ///< null: `body` is captured
  expression_ptr filter; ///< of the captured body; may be null
  block body;
};
struct macro_definition {
  std::string name;
  std::vector<std::pair<std::string, expression_ptr>> parameters;
  block body;
  // What the body names, and what a call may then bring.
  bool takes_caller = false;
  bool takes_varargs = false;
  bool takes_kwargs = false;
};
struct macro_statement {
  std::shared_ptr<const macro_definition> macro;
};
/// {% call(a, b) macro(...) %}...{% endcall %}: `caller` is the block.
struct call_statement {
  call what;
  std::shared_ptr<const macro_definition> caller;
};
/// {% filter a | b %}...{% endfilter %}.
struct filter_statement {
  expression_ptr filter;
  block body;
};
/// {% with a = 1, b = 2 %}...{% endwith %}, and {% generation %}: a block whose
/// names are its own.
struct scope_block {
  std::vector<std::pair<std::string, expression_ptr>> names;
  block body;
};
struct break_statement {};
struct continue_statement {};

struct statement {
  int line = 0;
  std::variant<text_output, expression_output, if_statement, for_statement,
               set_statement, macro_statement, call_statement, filter_statement,
               scope_block, break_statement, continue_statement>
      what;
};

} // namespace troupe::text::jinja
