#include "engine/text/tokenizer.hpp"

#include "engine/text/pretokenizers.hpp"
#include "engine/text/utf8.hpp"
#include "tests/unit/text/fixtures.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>

using namespace troupe;
using namespace troupe::text;

namespace {

// One of fixtures/*.bin, read to its end.
class expectations {
public:
  explicit expectations(const std::string& name)
      : bytes_(fixtures::read_file("tokenizer_" + name + ".bin")) {
    // nop
  }

  bool more() const {
    return at_ < bytes_.size();
  }

  std::string text() {
    auto size = number();
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }

  std::vector<token_id> ids() {
    std::vector<token_id> out(number());
    for (auto& id : out)
      id = static_cast<token_id>(number());
    return out;
  }

private:
  std::uint32_t number() {
    std::uint32_t out = 0;
    REQUIRE(at_ + sizeof out <= bytes_.size());
    std::memcpy(&out, bytes_.data() + at_, sizeof out);
    at_ += sizeof out;
    return out;
  }

  std::string bytes_;
  std::size_t at_ = 0;
};

// A vocabulary of single ASCII letters, some merges and two special tokens.
tokenizer_data letters() {
  tokenizer_data out;
  for (char c = 'a'; c <= 'z'; ++c)
    out.vocabulary.emplace_back(1, c);
  out.vocabulary.insert(out.vocabulary.end(),
                        {"ab", "bc", "abc", "<", ">", "|"});
  out.kinds.assign(out.vocabulary.size(), token_kind::normal);
  out.merges = {"b c", "a b", "a bc"};
  for (const char* special : {"<s>", "<s>x"}) {
    out.vocabulary.emplace_back(special);
    out.kinds.push_back(token_kind::special);
  }
  return out;
}

std::vector<std::string> spelled(const tokenizer& tok,
                                 const std::vector<token_id>& ids) {
  std::vector<std::string> out;
  for (auto id : ids)
    out.emplace_back(tok.bytes_of(id));
  return out;
}

using words = std::vector<std::string>;

} // namespace

TEST_CASE("ids are those of Hugging Face's tokenizers") {
  std::string name =
      GENERATE("words", "prefix", "digits", "llama3", "splits", "kept", "nfc",
               "spm_bpe", "spm_bpe_first", "bpe_unknown", "unigram_lower",
               "unigram_bytes", "charsmap", "wordpiece", "wordpiece_cased");
  CAPTURE(name);
  auto tok = fixtures::load(name);
  expectations expected{name};
  int texts = 0;
  int wrong = 0;
  while (expected.more()) {
    auto text = expected.text();
    wrong += fixtures::ids(*tok, text, false) == expected.ids() ? 0 : 1;
    wrong += fixtures::ids(*tok, text, true) == expected.ids() ? 0 : 1;
    ++texts;
  }
  CHECK(texts > 50);
  CHECK(wrong == 0);
}

TEST_CASE("the best merge goes first, then the leftmost") {
  auto tok = tokenizer::make(letters()).value();
  CHECK(spelled(*tok, fixtures::ids(*tok, "abc")) == words{"abc"});
  CHECK(spelled(*tok, fixtures::ids(*tok, "abab")) == words{"ab", "ab"});
  CHECK(spelled(*tok, fixtures::ids(*tok, "bcbabc")) ==
        words{"bc", "b", "abc"});
}

TEST_CASE("long words merge as short ones do") {
  auto tok = tokenizer::make(letters()).value();
  std::string text;
  words expected;
  for (int i = 0; i < 300; ++i) {
    text += "abcz";
    expected.insert(expected.end(), {"abc", "z"});
  }
  CHECK(spelled(*tok, fixtures::ids(*tok, text)) == expected);
}

TEST_CASE("scores stand for merges: the best makes way first") {
  auto data = letters();
  data.model = model_kind::bpe;
  data.merges.clear();
  data.scores.assign(data.vocabulary.size(), 0);
  data.scores[26] = -2; // "ab"
  data.scores[27] = -1; // "bc"
  data.scores[28] = -3; // "abc"
  auto tok = tokenizer::make(data).value();
  auto split = [&](std::string_view text) {
    return spelled(*tok, fixtures::ids(*tok, text));
  };
  CHECK(split("abc") == words{"abc"});
  CHECK(split("abab") == words{"ab", "ab"});
  CHECK(split("abbc") == words{"ab", "bc"});
  data.scores[28] = -9;
  data.vocabulary[28] = "abz";
  tok = tokenizer::make(data).value();
  CHECK(split("abc") == words{"a", "bc"});
}

TEST_CASE("long texts of one character take no square of their length") {
  constexpr std::size_t size = 1'000'000;
  for (const char* name : {"words", "spm_bpe", "unigram_lower", "charsmap",
                           "wordpiece", "bpe_unknown"}) {
    CAPTURE(name);
    auto tok = fixtures::load(name);
    for (auto c : {'a', ' ', '\n', '.', '0'}) {
      auto ids = fixtures::ids(*tok, std::string(size, c));
      CHECK(ids.size() <= size + 1);
    }
  }
}

TEST_CASE("a special token is not found where a normalizer makes it") {
  auto tok = fixtures::load("unigram_lower");
  auto special = [&](std::string_view text, bool parse) {
    auto ids = fixtures::ids(*tok, text, parse);
    return std::any_of(ids.begin(), ids.end(), [&](token_id id) {
      return tok->is_special(id) && id != tok->data().unknown;
    });
  };
  CHECK(special("a <s> b", true));
  CHECK_FALSE(special("a <s> b", false));
  CHECK_FALSE(special("a <S> b", true));
  CHECK_FALSE(special("a \uFF1Cs\uFF1E b", true));
}

TEST_CASE("bytes that the vocabulary lacks are dropped or unknown") {
  auto data = letters();
  auto drops = tokenizer::make(data).value();
  CHECK(spelled(*drops, fixtures::ids(*drops, "aXb")) == words{"ab"});
  data.unknown = 25;
  auto marks = tokenizer::make(data).value();
  CHECK(spelled(*marks, fixtures::ids(*marks, "aXb")) == words{"a", "z", "b"});
}

TEST_CASE("no text yields a special token as the unknown one") {
  auto data = letters();
  data.unknown = static_cast<token_id>(data.vocabulary.size() - 1);
  auto tok = tokenizer::make(data).value();
  CHECK(spelled(*tok, fixtures::ids(*tok, "aXb")) == words{"ab"});
}

TEST_CASE("special tokens are plain text where they are not parsed") {
  auto tok = tokenizer::make(letters()).value();
  CHECK(spelled(*tok, fixtures::ids(*tok, "a<s>b")) == words{"a", "<s>", "b"});
  CHECK(spelled(*tok, fixtures::ids(*tok, "<s>x<s>")) == words{"<s>x", "<s>"});
  CHECK(spelled(*tok, fixtures::ids(*tok, "a<s>b", false)) ==
        words{"a", "<", "s", ">", "b"});
}

TEST_CASE("content never yields a special token") {
  auto tok = tokenizer::make(letters()).value();
  auto encode = [&](const text_pieces& pieces) {
    return spelled(*tok, fixtures::ids(*tok, pieces));
  };
  SECTION("whole") {
    CHECK(encode({{"<s>", false}, {"<s>", true}, {"<s>", false}}) ==
          words{"<s>", "<", "s", ">", "<s>"});
  }
  SECTION("with one character of it") {
    CHECK(encode({{"<", false}, {"s", true}, {">", false}}) ==
          words{"<", "s", ">"});
    CHECK(encode({{"<s", false}, {">", true}}) == words{"<", "s", ">"});
    CHECK(encode({{"<", true}, {"s>", false}}) == words{"<", "s", ">"});
  }
  SECTION("nor hides one of the template") {
    CHECK(encode({{"<s>", false}, {"x", true}}) == words{"<s>", "x"});
    CHECK(encode({{"<", true}, {"<s>", false}}) == words{"<", "<s>"});
  }
  SECTION("and the template's own may be in several pieces") {
    CHECK(encode({{"<", false}, {"s>", false}}) == words{"<s>"});
  }
}

TEST_CASE("pieces are one text for the merges") {
  auto tok = tokenizer::make(letters()).value();
  CHECK(fixtures::ids(*tok, text_pieces{{"a", false}, {"bc", true}}) ==
        fixtures::ids(*tok, "abc"));
}

TEST_CASE("text cut into pieces of one origin encodes as the whole") {
  auto tok = fixtures::load("words");
  expectations expected{"words"};
  std::mt19937 random{1};
  int wrong = 0;
  while (expected.more()) {
    auto text = expected.text();
    auto plain = expected.ids();
    auto special = expected.ids();
    text_pieces pieces;
    for (std::size_t at = 0; at < text.size();) {
      auto size = std::min<std::size_t>(1 + random() % 20, text.size() - at);
      pieces.push_back({text.substr(at, size), false});
      at += size;
    }
    wrong += fixtures::ids(*tok, pieces) == special ? 0 : 1;
    for (auto& piece : pieces)
      piece.content = true;
    wrong += fixtures::ids(*tok, pieces) == plain ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("threads share a tokenizer") {
  auto tok = fixtures::load("digits");
  auto text = fixtures::read_file("tokenizer_digits.json").substr(0, 8000);
  auto expected = fixtures::ids(*tok, text);
  std::vector<std::vector<token_id>> got(4);
  std::vector<std::thread> threads;
  for (auto& out : got)
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i)
        out = fixtures::ids(*tok, text);
    });
  for (auto& thread : threads)
    thread.join();
  for (const auto& out : got)
    CHECK(out == expected);
}

TEST_CASE("entries are found by id and by spelling") {
  auto tok = tokenizer::make(letters()).value();
  CHECK(tok->id_of("abc") == 28);
  CHECK(tok->id_of("nothing") == -1);
  CHECK(tok->bytes_of(28) == "abc");
  CHECK(tok->bytes_of(-1).empty());
  CHECK(tok->bytes_of(1'000'000).empty());
  CHECK(tok->is_special(32));
  CHECK_FALSE(tok->is_special(0));
  CHECK_FALSE(tok->is_special(1'000'000));
}

TEST_CASE("data that does not fit together is refused") {
  auto data = letters();
  SECTION("kinds") {
    data.kinds.pop_back();
  }
  SECTION("ids") {
    data.bos = 1000;
  }
  SECTION("a bos that is wanted and not there") {
    data.add_bos = true;
  }
  SECTION("a merge of nothing known") {
    data.merges.push_back("q u");
  }
  SECTION("a merge of one entry") {
    data.merges.push_back("ab");
  }
  SECTION("a merge of three entries") {
    data.merges.push_back("a b c");
  }
  SECTION("a merge into a special token") {
    data.merges = {"< s", "<s >"};
  }
  SECTION("two entries spelled alike") {
    data.vocabulary.push_back("a");
    data.kinds.push_back(token_kind::normal);
  }
  SECTION("a pattern that does not compile") {
    data.pre_tokenizer.push_back({.pattern = {"(a", true}});
  }
  SECTION("a replacement of nothing") {
    data.normalizer.push_back({.what = normalizer_step::kind::replace});
  }
  SECTION("texts that grow without end") {
    for (int i = 0; i < 5; ++i)
      data.normalizer.push_back({.what = normalizer_step::kind::replace,
                                 .pattern = {"a", false},
                                 .text = "aaaaaaaaaa"});
  }
  SECTION("a table that is none") {
    data.normalizer.push_back(
        {.what = normalizer_step::kind::charsmap, .text = "1234"});
  }
  SECTION("a decoder whose order makes no sense") {
    data.decoder = {{.what = decoder_step::kind::byte_fallback},
                    {.what = decoder_step::kind::metaspace, .text = "_"}};
  }
  SECTION("a frame of an unknown id") {
    data.frame_one = {{1000}};
  }
  SECTION("a score that is no number") {
    data.merges.clear();
    data.scores.assign(3, std::nan(""));
  }
  SECTION("merges and scores") {
    data.scores.assign(data.vocabulary.size(), 0);
  }
  SECTION("unigram without an unknown token") {
    data.model = model_kind::unigram;
    data.scores.assign(data.vocabulary.size(), 0);
  }
  SECTION("unigram without scores") {
    data.model = model_kind::unigram;
    data.unknown = 0;
  }
  SECTION("wordpiece without an unknown token") {
    data.model = model_kind::wordpiece;
  }
  SECTION("options for no token") {
    data.added_options.push_back({.id = 1000});
  }
  SECTION("an endless special token") {
    data.vocabulary.push_back(std::string(10'000, 'q'));
    data.kinds.push_back(token_kind::special);
  }
  SECTION("a special token that is no text") {
    data.vocabulary.push_back("<\xFF>");
    data.kinds.push_back(token_kind::special);
  }
  SECTION("nothing at all") {
    data = {};
  }
  CHECK(tokenizer::make(data).has_error());
}

TEST_CASE("a known pre-tokenizer compiles, an unknown one is refused") {
  for (const char* name :
       {"smollm", "gpt-2", "llama-bpe", "llama3", "qwen2", "starcoder"}) {
    auto data = letters();
    auto patterns = split_patterns_of(name).value();
    for (const auto& pattern : patterns)
      data.pre_tokenizer.push_back({.pattern = {pattern, true}});
    CHECK(tokenizer::make(data).has_value());
  }
  CHECK(pretokenizer_of("llama-bpe")->ignore_merges);
  CHECK(pretokenizer_of("qwen2")->normalize_nfc);
  CHECK_FALSE(split_patterns_of("default"));
  CHECK_FALSE(split_patterns_of(""));
}

TEST_CASE("invalid UTF-8 is replaced by maximal subparts") {
  auto replaced = [](std::string_view bytes) {
    std::string out;
    append_replaced(bytes, out);
    return out;
  };
  const std::string r{replacement_character};
  CHECK(replaced("a\xC3\xA9z") == "a\xC3\xA9z");
  CHECK(replaced("\xFFz") == r + "z");
  CHECK(replaced("\xE2\x82") == r);
  CHECK(replaced("\xE2\x82z") == r + "z");
  CHECK(replaced("\xF0\x9F\x98") == r);
  CHECK(replaced("\xC0\xAF") == r + r);
  CHECK(replaced("\xE0\x80\x80") == r + r + r);
  CHECK(replaced("\xED\xA0\x80") == r + r + r);
  CHECK(replaced("\xF4\x90\x80\x80") == r + r + r + r);
  CHECK(replaced("\xF0\x9F\xF0\x9F\x98\x80") == r + "\xF0\x9F\x98\x80");
}
