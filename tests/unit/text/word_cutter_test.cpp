#include "engine/text/word_cutter.hpp"

#include "engine/text/pretokenizers.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace troupe::text;

namespace {

// Signs, white space, apostrophes and a few characters beyond ASCII.
std::string random_text(std::mt19937& random) {
  static const std::string units[] = {
      "a",      "S",      "t",      "re",     "LL",   "ve",  "d",  "m",
      "'",      "'",      "0",      "42",     " ",    " ",   "  ", "\n",
      "\r",     "\r\n",   "\t",     "\v",     ".",    "!?",  "_",  "\u00E9",
      "\u017F", "\u00A0", "\u0664", "\u4E2D", "\x1C", "\x7F"};
  std::string out;
  auto beyond = random() % 2 == 0; // half of them plain ASCII
  for (auto count = random() % 40; count > 0; --count) {
    const auto& unit = units[random() % std::size(units)];
    if (beyond || static_cast<unsigned char>(unit[0]) < 0x80)
      out += unit;
  }
  return out;
}

} // namespace

TEST_CASE("words are cut as their pattern cuts them") {
  auto name = GENERATE("digits", "gpt-2", "llama-bpe", "qwen2");
  CAPTURE(name);
  auto source = std::string_view{name} == "digits"
                    ? std::string{digit_pattern}
                    : split_patterns_of(name)->front();
  auto pattern = split_pattern::compile(source).value();
  auto cutter = word_cutter::of(source);
  REQUIRE(cutter);
  std::mt19937 random{11};
  match_scratch scratch;
  int told = 0;
  int wrong = 0;
  for (int round = 0; round < 20'000; ++round) {
    auto text = random_text(random);
    for (std::size_t at = 0; at < text.size();) {
      auto expected = pattern.find(text, at, scratch);
      auto got = cutter->find(text, at);
      auto none = split_pattern::range{text.size(), text.size()};
      told += got ? 1 : 0;
      wrong += got && *got != expected.value_or(none) ? 1 : 0;
      at = expected ? expected->second : text.size();
    }
  }
  CHECK(told > 10'000);
  CHECK(wrong == 0);
}

TEST_CASE("only the patterns that are written out are known") {
  CHECK_FALSE(word_cutter::of("\\p{L}+"));
  CHECK_FALSE(word_cutter::of(""));
}
