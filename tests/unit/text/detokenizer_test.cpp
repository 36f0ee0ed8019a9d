#include "engine/text/detokenizer.hpp"

#include "engine/text/utf8.hpp"
#include "tests/unit/text/fixtures.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace troupe::text;

namespace {

std::string detokenize(const std::shared_ptr<const tokenizer>& tok,
                       const std::vector<token_id>& ids, bool skip_special,
                       bool* all_whole = nullptr) {
  detokenizer detok{tok, skip_special};
  std::string out;
  for (auto id : ids) {
    std::string step;
    detok.push(id, step);
    if (all_whole != nullptr)
      *all_whole = *all_whole && is_utf8(step);
    out += step;
  }
  detok.finish(out);
  return out;
}

} // namespace

TEST_CASE("ids become the text that they came from") {
  auto tok = fixtures::load("words");
  for (std::string text :
       {"The harbour's boats.", "灯台 🏃🏽‍♀️ Żółta\n\t x",
        "<|begin|>hello<|end|>"})
    CHECK(detokenize(tok, fixtures::ids(*tok, text), false) == text);
  CHECK(detokenize(tok, fixtures::ids(*tok, "<|begin|>hi<|end|>"), true) ==
        "hi");
}

TEST_CASE("text in steps is the text of all bytes at once") {
  auto tok = fixtures::load("words");
  std::mt19937 random{3};
  int wrong = 0;
  auto whole_characters = true;
  for (int round = 0; round < 3000; ++round) {
    std::vector<token_id> ids(random() % 40);
    std::string bytes;
    for (auto& id : ids) {
      // Mostly single bytes, so that characters are torn and broken.
      id = static_cast<token_id>(random() % (random() % 4 == 0 ? 720 : 256));
      bytes += tok->bytes_of(id);
    }
    std::string expected;
    append_replaced(bytes, expected);
    wrong += detokenize(tok, ids, false, &whole_characters) == expected ? 0 : 1;
  }
  CHECK(wrong == 0);
  CHECK(whole_characters);
}

TEST_CASE("a character comes out once it is whole") {
  auto tok = fixtures::load("words");
  detokenizer detok{tok, true};
  auto byte = [&](const char* spelling) { return tok->id_of(spelling); };
  std::string out;
  detok.push(byte("\u00E2"), out); // E2
  detok.push(byte("\u0124"), out); // 82
  CHECK(out.empty());
  detok.push(byte("\u00AC"), out); // AC
  CHECK(out == "\u20AC");
  detok.push(byte("\u00E2"), out);
  detok.finish(out);
  CHECK(out == "\u20AC\uFFFD");
}

TEST_CASE("a space that is not shown is taken from the front only") {
  auto tok = fixtures::load("spm_bpe");
  for (std::string text : {"The boats.", " The boats.", "\u706F\u53F0 x  y",
                           "\xF0\x9F\x8F\x96 \n"})
    CHECK(detokenize(tok, fixtures::ids(*tok, text), false) == text);
  CHECK(detokenize(tok, fixtures::ids(*tok, "<s>The"), true) == "The");
  CHECK(detokenize(tok, {}, true).empty());
}

TEST_CASE("bytes of unknown characters come out as the character") {
  auto tok = fixtures::load("spm_bpe");
  detokenizer detok{tok, true};
  std::string out;
  for (const char* byte : {"<0xE2>", "<0x82>"})
    detok.push(tok->id_of(byte), out);
  CHECK(out.empty());
  detok.push(tok->id_of("<0xAC>"), out);
  CHECK(out == "\u20AC");
  detok.push(tok->id_of("<0xAC>"), out);
  CHECK(out == "\u20AC\uFFFD");
}

TEST_CASE("words of a WordPiece are put together again") {
  auto tok = fixtures::load("wordpiece");
  auto text = "The harbour, isn't she? 12";
  CHECK(detokenize(tok, fixtures::ids(*tok, text), true) ==
        "the harbour, isn ' t she? 12");
  CHECK(tok->bytes_at_front(tok->id_of("the")) == "the");
  CHECK(tok->bytes_of(tok->id_of("the")) == " the");
}
