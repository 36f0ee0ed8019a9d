#include "engine/text/split_pattern.hpp"

#include <catch2/catch.hpp>

using namespace troupe::text;

namespace {

// All matches in a text.
std::vector<std::string> matches(std::string_view pattern,
                                 std::string_view text) {
  auto compiled = split_pattern::compile(pattern).value();
  match_scratch scratch;
  std::vector<std::string> out;
  std::size_t from = 0;
  while (auto match = compiled.find(text, from, scratch)) {
    out.emplace_back(text.substr(match->first, match->second - match->first));
    from = match->second;
  }
  return out;
}

using words = std::vector<std::string>;

} // namespace

TEST_CASE("white space is Unicode's, without U+180E") {
  CHECK(matches(R"(\s)", "a\u3000b\u180Ec\u0085d\u200Be").size() == 2);
  CHECK(matches(R"(\S+)", "a\u3000b\u180Ec\u0085d") ==
        words{"a", "b\u180Ec", "d"});
}

TEST_CASE("categories are those of Unicode 16") {
  CHECK(matches(R"(\p{L}+)", "a\u1C8A\U000105C0 \U000323AF") ==
        words{"a\u1C8A\U000105C0", "\U000323AF"});
  CHECK(matches(R"(\P{L}+)", "a1\U000105C0").size() == 1);
  CHECK(matches(R"([^\s\p{L}\p{N}]+)", "a\U00010D40!").size() == 1);
  CHECK(matches(R"(\d+)", "12\u0663x\u00BD") == words{"12\u0663"});
}

TEST_CASE("case is ignored where the pattern says so") {
  CHECK(matches(R"((?i:'s|'ll)|x)", "'S'sX'lL'\u017Fx") ==
        words{"'S", "'s", "'lL", "'\u017F", "x"});
}

TEST_CASE("a dollar ends lines and the text") {
  CHECK(matches(R"(\s+$)", "a  \nb  ") == words{"  ", "  "});
}

TEST_CASE("repeats may be greedy, lazy and possessive") {
  CHECK(matches("a{2}", "aaaaa") == words{"aa", "aa"});
  CHECK(matches("a{1,3}", "aaaa") == words{"aaa", "a"});
  CHECK(matches("a+?", "aa") == words{"a", "a"});
  CHECK(matches("a++b", "aab") == words{"aab"});
  CHECK(matches("(?:ab)+", "ababa") == words{"abab"});
}

TEST_CASE("what is not known is refused, never guessed") {
  auto pattern = GENERATE(
      as<std::string>{}, "^a", R"(\b)", R"(\w)", R"(\h)", R"((a)\1)",
      R"(\p{Han})", R"([[:alpha:]])", R"([a&&b])", R"((?<name>a))", R"((?#c)a)",
      "(?R)a", R"(\p{L)", "(a", "a)", "[a", "[]a]", "a**", "a{,3}", "a{3,2}",
      "a{2000}", "a{1}{2}", "*a", "(?i:[a])", "(?m)a", R"(\)", R"(\x41)",
      R"(\u12)", R"(\uD800)", R"([\P{L}])", "\xFF", "(?=a)+");
  CAPTURE(pattern);
  CHECK(split_pattern::compile(pattern).has_error());
}

TEST_CASE("patterns that may match nothing are refused") {
  CHECK(split_pattern::compile("a*").has_error());
  CHECK(split_pattern::compile("").has_error());
  CHECK(split_pattern::compile("a|").has_error());
  CHECK(split_pattern::compile("(?=a)").has_error());
}

TEST_CASE("patterns that take forever are refused") {
  CHECK(split_pattern::compile("(a+)+b").has_error());
  CHECK(split_pattern::compile("(?:a*)*b").has_error());
  CHECK(split_pattern::compile("(?:a+){2,}b").has_error());
  CHECK(split_pattern::compile("(a|aa|a)+b").has_error());
  CHECK(split_pattern::compile("(a|a)*b").has_error());
  CHECK(split_pattern::compile(std::string(20'000, 'a')).has_error());
  CHECK(split_pattern::compile(std::string(5'000, '(')).has_error());
  CHECK(split_pattern::compile("((a{1000}){1000}){1000}").has_error());
}
