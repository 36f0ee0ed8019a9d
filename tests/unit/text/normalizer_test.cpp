#include "engine/text/normalizer.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::text;
using kind = normalizer_step::kind;

namespace {

normalized_text run(std::vector<normalizer_step> steps, std::string_view text) {
  match_scratch scratch;
  return normalizer::make(steps).value().run(text, scratch);
}

// A table that replaces "a" by "xy" and "b" by nothing: a root with two
// children, each with a leaf.
std::string small_table() {
  std::vector<std::uint32_t> units(256, 0);
  auto link = [](unsigned char label, std::uint32_t from, std::uint32_t to) {
    return (from ^ to) << 10 | 1u << 8 | label; // it has a leaf
  };
  units[0] = 0; // children of the root are at their labels
  units['a'] = link('a', 'a', 2);
  units['b'] = link('b', 'b', 3);
  units[2] = 0x80000000u | 0; // where the replacements begin
  units[3] = 0x80000000u | 2;
  std::string out;
  auto put = [&](std::uint32_t value) {
    for (int shift = 0; shift < 32; shift += 8)
      out += static_cast<char>(value >> shift & 0xFF);
  };
  put(static_cast<std::uint32_t>(units.size() * 4));
  for (auto unit : units)
    put(unit);
  return out + std::string{"xy\0\0", 4};
}

} // namespace

TEST_CASE("a normalizer takes its steps one after the other") {
  auto out = run({{.what = kind::strip, .left = true, .right = true},
                  {.what = kind::lowercase},
                  {.what = kind::replace, .pattern = {" +", true}, .text = "_"},
                  {.what = kind::prepend, .text = ">"}},
                 "  \u00C9A  B\u3000");
  CHECK(out.text == ">\u00E9a_b");
  CHECK(out.front_is_gone);
  CHECK(run({{.what = kind::prepend, .text = ">"}}, "").text.empty());
  CHECK(run({{.what = kind::lowercase}}, "\u0130").text == "i\u0307");
}

TEST_CASE("BERT's steps clean, pad and strip") {
  CHECK(run({{.what = kind::bert_clean}}, "a\t\u00A0b\x01\uFFFD").text ==
        "a  b");
  CHECK(run({{.what = kind::bert_pad_ideographs}}, "a\u4E2Db").text ==
        "a \u4E2D b");
  CHECK(run({{.what = kind::bert_strip_accents}}, "\u00E9\u1EC7").text == "ee");
}

TEST_CASE("a SentencePiece table replaces characters") {
  auto out = run({{.what = kind::charsmap, .text = small_table()}}, "cabac");
  CHECK(out.text == "cxyxyc");
  CHECK_FALSE(out.front_is_gone);
  CHECK(run({{.what = kind::charsmap, .text = small_table()}}, "ba").text ==
        "xy");
  CHECK(run({{.what = kind::charsmap, .text = small_table()}}, "ba")
            .front_is_gone);
}

TEST_CASE("no table makes its reader leave it") {
  auto table = small_table();
  match_scratch scratch;
  int read = 0;
  for (std::size_t at = 0; at < table.size(); ++at) {
    auto broken = table;
    broken[at] = static_cast<char>(broken[at] ^ 0x55);
    auto made = normalizer::make({{.what = kind::charsmap, .text = broken}});
    read += made ? static_cast<int>(made->run("abc", scratch).text.size()) : 0;
  }
  CHECK(read > 0);
}
