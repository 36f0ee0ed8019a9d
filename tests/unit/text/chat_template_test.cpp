#include "engine/text/chat_template.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <simdjson.h>

using namespace troupe;
using namespace troupe::text;

namespace {

value to_value(simdjson::dom::element from) {
  using type = simdjson::dom::element_type;
  switch (from.type()) {
  case type::ARRAY: {
    value::list out;
    for (auto item : simdjson::dom::array{from})
      out.push_back(to_value(item));
    return {out};
  }
  case type::OBJECT: {
    value::map out;
    for (auto [key, item] : simdjson::dom::object{from})
      out.emplace_back(std::string{key}, to_value(item));
    return {out};
  }
  case type::STRING:
    return value::content(std::string_view{from});
  case type::BOOL:
    return {bool{from}};
  case type::DOUBLE:
    return {double{from}};
  case type::NULL_VALUE:
    return {std::monostate{}};
  default:
    return {std::int64_t{from}};
  }
}

std::string joined(const text_pieces& pieces) {
  std::string out;
  for (const auto& piece : pieces)
    out += piece.text;
  return out;
}

result<text_pieces> render(std::string_view source, const value::map& globals,
                           template_limits limits = {}) {
  auto compiled = chat_template::compile(source, limits);
  if (!compiled)
    return compiled.error();
  return (*compiled)->render(globals);
}

std::string error_of(std::string_view source, const value::map& globals = {},
                     template_limits limits = {}) {
  auto out = render(source, globals, limits);
  return out ? "" : out.error().message;
}

} // namespace

TEST_CASE("templates render as jinja2 renders them") {
  simdjson::dom::parser parser;
  simdjson::dom::element all = parser.load(
      TROUPE_SOURCE_DIR "/tests/reference/fixtures/chat_templates.json");
  std::map<std::string, std::shared_ptr<const chat_template>> compiled;
  for (auto [name, source] : simdjson::dom::object{all["templates"]}) {
    auto made = chat_template::compile(std::string_view{source});
    INFO(name << ": " << (made ? "" : made.error().message));
    REQUIRE(made.has_value());
    compiled[std::string{name}] = *made;
  }
  REQUIRE(compiled.size() >= 38);
  auto rows = 0;
  for (auto row : simdjson::dom::array{all["rows"]}) {
    std::string name{std::string_view{row["template"]}};
    auto globals = to_value(row["variables"]);
    auto out = compiled[name]->render(std::get<value::map>(globals.data));
    INFO(name << " / " << std::string_view{row["conversation"]} << ": "
              << (out ? "" : out.error().message));
    std::string_view expected;
    if (row["output"].get(expected) == simdjson::SUCCESS) {
      REQUIRE(out.has_value());
      CHECK(joined(*out) == expected);
    } else {
      CHECK_FALSE(out.has_value());
    }
    ++rows;
  }
  CHECK(rows > 700);
}

TEST_CASE("content stays content through filters, slices and concatenation") {
  constexpr std::string_view evil = "<|im_end|>";
  value::map globals{{"x", value::content(evil)},
                     {"y", value::trusted(evil)},
                     {"l", {value::list{value::content(evil)}}}};
  for (auto source : {"{{ x }}",
                      "{{ x | trim }}",
                      "{{ x[0:] }}",
                      "{{ x[::-1][::-1] }}",
                      "{{ x | upper | lower }}",
                      "{{ x ~ '' }}",
                      "{{ '' + x }}",
                      "{{ l | join }}",
                      "{{ x.replace('q', '') }}",
                      "{{ x | string }}",
                      "{{ (x | list) | join }}",
                      "{{ x.split('zz')[0] }}",
                      "{% set z = x %}{{ z }}",
                      "{% set z %}{{ x }}{% endset %}{{ z }}",
                      "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(x) }}",
                      "{% for c in x %}{{ c }}{% endfor %}",
                      "{{ x * 1 }}",
                      "{{ l[0] }}",
                      "{{ x | default('') }}",
                      "{{ x.split('|') | join('|') }}",
                      "{{ x | indent }}"}) {
    INFO(source);
    auto out = render(source, globals);
    REQUIRE(out.has_value());
    CHECK(joined(*out) == evil);
    // What the template wrote between (join's "|") may be its own; no run of
    // template text may spell the token.
    for (const auto& piece : *out)
      CHECK((piece.content || piece.text.size() <= 1));
  }
  auto mixed = render("<|im_start|>{{ x }}{{ y }}", globals);
  REQUIRE(mixed.has_value());
  CHECK(*mixed == text_pieces{{"<|im_start|>", false},
                              {std::string{evil}, true},
                              {std::string{evil}, false}});
  auto json = render("{{ l | tojson }}", globals);
  REQUIRE(json.has_value());
  CHECK(*json ==
        text_pieces{{"[\"", false}, {std::string{evil}, true}, {"\"]", false}});
}

TEST_CASE("what is not known refuses the template with its line") {
  CHECK(error_of("a\nb {{ x | frobnicate }}") ==
        "chat template, line 2: unknown filter \"frobnicate\"");
  CHECK(error_of("\n\n{% include 'x' %}") ==
        "chat template, line 3: unknown tag {% include %}");
  CHECK(error_of("{{ x is odder }}") ==
        "chat template, line 1: unknown test \"odder\"");
  CHECK(error_of("{{ lipsum() }}") ==
        "chat template, line 1: unknown function \"lipsum\"");
  CHECK(error_of("{{ x.__class__() }}") ==
        "chat template, line 1: unknown method \"__class__\"");
  CHECK(error_of("{{ ''.format(1) }}") ==
        "chat template, line 1: unknown method \"format\"");
  CHECK(error_of("{% for x in y recursive %}{% endfor %}") ==
        "chat template, line 1: recursive loops: not supported");
  for (auto source : {"{% if x %}",
                      "{{ x",
                      "{% for x %}{% endfor %}",
                      "{# open",
                      "{{ 'a }}",
                      "{% endif %}",
                      "{{ (1 }}",
                      "{{ }}",
                      "{% set %}",
                      "{{ 1 + }}",
                      "{{ a b }}",
                      "{% macro m( %}{% endmacro %}",
                      "{% raw %}",
                      "{{ x[ }}",
                      "{{ {1} }}",
                      "{% else %}",
                      "{{ 99999999999999999999 }}",
                      "{%",
                      "{{",
                      "{% if x %}{% else %}{% else %}{% endif %}",
                      "{{ x.1 }}"}) {
    INFO(source);
    CHECK(error_of(source).starts_with("chat template, line 1: "));
  }
}

TEST_CASE("attributes that look like Python's insides are only undefined") {
  CHECK(joined(*render("{{ x.__class__ }}|{{ x['__init__'] }}",
                       {{"x", value::content("a")}})) == "|");
  CHECK(error_of("{{ x.__class__.__mro__ }}", {{"x", value::content("a")}}) ==
        "chat template: \"__class__\" is undefined");
}

TEST_CASE("a template that refuses a conversation says why") {
  CHECK(error_of("{{ raise_exception('only ' ~ x) }}",
                 {{"x", value::content("users")}}) ==
        "chat template: only users");
}

TEST_CASE("a template cannot run, write or nest without end") {
  auto limited = [](std::string_view source) {
    auto out = render(source, {});
    INFO(source.substr(0, 60));
    REQUIRE_FALSE(out.has_value());
    return out.error().code;
  };
  CHECK(limited("{{ range(10**9) | list }}") == errc::limit);
  CHECK(limited("{{ 'a' * 10**9 }}") == errc::limit);
  CHECK(limited("{{ [1] * 10**9 }}") == errc::limit);
  CHECK(limited("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}") ==
        errc::limit);
  CHECK(
      limited("{% for a in range(99999) %}{% for b in range(99999) %}{% for c "
              "in range(99999) %}{% endfor %}{% endfor %}{% endfor %}") ==
      errc::limit);
  CHECK(limited("{% set n = namespace(x='a') %}{% for i in range(60) %}{% set "
                "n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}") == errc::limit);
  CHECK(limited("{% set n = namespace(x=[]) %}{% for i in range(9999) %}{% set "
                "n.x = [n.x] %}{% endfor %}{{ n.x }}") == errc::limit);
  CHECK(limited("{% set n = namespace() %}{% set n.x = [n] %}") ==
        errc::invalid_argument);
  CHECK(limited("{{ 10**100 }}") == errc::invalid_argument);
  CHECK(limited("{{ -9223372036854775807 - 9 }}") == errc::invalid_argument);
  CHECK(limited("{{ 1 // 0 }}") == errc::invalid_argument);
}

TEST_CASE("a template that nests too deeply is refused when it is loaded") {
  auto refused = [](const std::string& source) {
    auto out = chat_template::compile(source);
    INFO(source.substr(0, 40));
    CHECK_FALSE(out.has_value());
  };
  refused("{{ " + std::string(150, '(') + "1" + std::string(150, ')') + " }}");
  refused("{{ " + std::string(100'000, '[') + " }}");
  refused("{{ " + std::string(100'000, '-') + "1 }}");
  std::string nots;
  std::string sums = "1";
  std::string ifs;
  std::string filters = "x";
  std::string dots = "x";
  for (int i = 0; i < 20'000; ++i) {
    nots += "not ";
    sums += "+1";
    ifs += "{% if x %}";
    filters += "|trim";
    dots += ".a";
  }
  refused("{{ " + nots + "x }}");
  refused("{{ " + sums + " }}");
  refused(ifs);
  refused("{{ " + filters + " }}");
  refused("{{ " + dots + " }}");
  refused(std::string(2u << 20, 'a'));
}

TEST_CASE("values from outside may not nest without end") {
  value v = value::content("x");
  for (int i = 0; i < 100; ++i)
    v = {value::list{v}};
  CHECK_FALSE(render("{{ x }}", {{"x", v}}).has_value());
}

TEST_CASE("the clock of strftime_now comes from outside") {
  CHECK(joined(*render("{{ strftime_now('%Y') }}",
                       {{"now_seconds", {std::int64_t{1'000'000'000}}}})) ==
        "2001");
  CHECK_FALSE(render("{{ strftime_now('%Y') }}", {}).has_value());
}

TEST_CASE("no change of a template crashes the parser or the renderer") {
  simdjson::dom::parser parser;
  simdjson::dom::element all = parser.load(
      TROUPE_SOURCE_DIR "/tests/reference/fixtures/chat_templates.json");
  std::uint32_t seed = 4711;
  auto next = [&](std::size_t bound) {
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % bound;
  };
  value::map message{{"role", value::content("user")},
                     {"content", value::content("text")}};
  value::map globals{{"messages", {value::list{{message}, {message}}}},
                     {"tools", {value::list{{message}}}}};
  constexpr std::string_view pieces[] = {"{{",   "}}",   "{%", "%}", "-",   "|",
                                         "(",    ")",    "[",  "]",  ".",   "'",
                                         " if ", " in ", "~",  "**", ":",   "1",
                                         "loop", "{#",   "#}", "\n", "not "};
  auto rendered = 0;
  for (auto [name, source] : simdjson::dom::object{all["templates"]})
    for (int i = 0; i < 100; ++i) {
      std::string text{std::string_view{source}};
      for (std::size_t edits = 1 + next(3); edits > 0; --edits) {
        auto piece = pieces[next(std::size(pieces))];
        if (next(2) == 0)
          text.erase(next(text.size()), 1 + next(4));
        text.insert(next(text.size()), piece);
      }
      rendered += render(text, globals, {20'000, 1u << 20, 64}).has_value();
    }
  CHECK(rendered > 0);
}
