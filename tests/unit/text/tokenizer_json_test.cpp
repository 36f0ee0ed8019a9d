#include "engine/text/detokenizer.hpp"
#include "tests/unit/text/fixtures.hpp"

#include <catch2/catch.hpp>
#include <fmt/format.h>
#include <random>

using namespace troupe;
using namespace troupe::text;

namespace {

// A small file with one part of it replaced.
std::string file_with(std::string_view part, std::string_view replacement) {
  std::string out = R"({"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 3, "content": "<s>", "single_word": false,
      "lstrip": false, "rstrip": false, "normalized": false,
      "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
      "trim_offsets": true, "use_regex": true},
    "post_processor": null,
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null,
      "continuing_subword_prefix": null, "end_of_word_suffix": null,
      "fuse_unk": false, "byte_fallback": false,
      "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})";
  if (part.empty())
    return out;
  auto at = out.find(part);
  REQUIRE(at != std::string::npos);
  return out.replace(at, part.size(), replacement);
}

std::string message_of(const std::string& file) {
  auto data = read_tokenizer_json(file);
  return data ? "accepted" : data.error().message;
}

using Catch::Matchers::Contains;

} // namespace

TEST_CASE("a tokenizer.json is read into data") {
  auto data = read_tokenizer_json(file_with("", "")).value();
  CHECK(data.vocabulary == std::vector<std::string>{"a", "b", "ab", "<s>"});
  CHECK(data.kinds[3] == token_kind::special);
  CHECK(data.merges == std::vector<std::string>{"a b"});
  CHECK(data.model == model_kind::byte_level_bpe);
  CHECK(data.pre_tokenizer.size() == 1);
  CHECK(data.decoder.empty());
  CHECK(data.bos == -1);
  CHECK(data.unknown == -1);
}

TEST_CASE("without a decoder entries are joined by spaces") {
  auto tok =
      tokenizer::make(read_tokenizer_json(file_with(R"({"type": "ByteLevel"},
    "model")",
                                                    R"(null,
    "model")"))
                          .value())
          .value();
  detokenizer out{tok, true};
  std::string text;
  for (token_id id : {3, 2, 0, 1})
    out.push(id, text);
  out.finish(text);
  CHECK(text == "ab a b"); // as tokenizers 0.23.3 has it
}

TEST_CASE("merges may be pairs") {
  auto data =
      read_tokenizer_json(file_with(R"(["a b"])", R"([["a", "b"]])")).value();
  CHECK(data.merges == std::vector<std::string>{"a b"});
}

TEST_CASE("a template with bos asks for bos") {
  auto data = fixtures::data("words");
  CHECK(data.add_bos);
  CHECK(data.vocabulary[static_cast<std::size_t>(data.bos)] == "<|begin|>");
}

TEST_CASE("what is put around texts is read") {
  auto data = fixtures::data("wordpiece");
  auto cls = data.frame_one.at(0).id;
  auto sep = data.frame_one.at(2).id;
  CHECK(data.vocabulary[static_cast<std::size_t>(cls)] == "[CLS]");
  CHECK(data.vocabulary[static_cast<std::size_t>(sep)] == "[SEP]");
  CHECK(data.frame_one == std::vector<frame_place>{{cls}, {-1}, {sep}});
  CHECK(data.frame_two ==
        std::vector<frame_place>{{cls}, {-1}, {sep}, {-2, 1}, {sep, 1}});
  CHECK_FALSE(data.add_bos);
  auto roberta = fixtures::data("wordpiece_cased");
  CHECK(roberta.frame_two.size() == 6);
  auto bos = fixtures::data("spm_bpe");
  CHECK(bos.add_bos);
  CHECK(bos.frame_one.empty());
  CHECK(bos.frame_two.size() == 4);
}

TEST_CASE("truncation and padding are left out") {
  auto data = read_tokenizer_json(
      file_with(R"("truncation": null, "padding": null)",
                R"("truncation": {"max_length": 5}, "padding": {})"));
  CHECK(data.has_value());
}

TEST_CASE("every kind of model is read") {
  CHECK(fixtures::data("spm_bpe").model == model_kind::bpe);
  CHECK(fixtures::data("spm_bpe").byte_fallback);
  CHECK(fixtures::data("unigram_lower").model == model_kind::unigram);
  CHECK(fixtures::data("wordpiece").model == model_kind::wordpiece);
  CHECK(fixtures::data("charsmap").normalizer.at(0).what ==
        normalizer_step::kind::charsmap);
}

TEST_CASE("scores are rounded as in tokenizers") {
  auto file = [](std::string_view score) {
    return fmt::format(R"({{"added_tokens": [], "decoder": {{"type": "Fuse"}},
      "model": {{"type": "Unigram",
      "unk_id": 0, "vocab": [["<unk>", 0], ["a", {}]]}}}})",
                       score);
  };
  auto read = [&](std::string_view score) {
    return read_tokenizer_json(file(score)).value().scores.at(1);
  };
  // What tokenizers 0.23.3 writes after reading these.
  CHECK(read("97.45365320034685") == 97.45365320034684);
  CHECK(read("-1.9968587436411918") == -1.996858743641192);
  CHECK(read("-2.0181561510596353") == -2.0181561510596353);
  CHECK(read("-7") == -7);
  CHECK(read("1.5e10") == 1.5e10);
  CHECK(read("-1e-300") == -1e-300);
  CHECK(read("1e300") == 1e300);
}

TEST_CASE("gaps between ids are unused entries") {
  auto data =
      read_tokenizer_json(file_with(R"("id": 3)", R"("id": 9)")).value();
  REQUIRE(data.vocabulary.size() == 10);
  CHECK(data.kinds[5] == token_kind::unused);
  CHECK(tokenizer::make(data).has_value());
}

TEST_CASE("what a tokenizer.json may ask for beyond that is refused by name") {
  struct refusal {
    const char* part;
    const char* replacement;
    const char* named;
  };
  auto c = GENERATE(
      refusal{R"("type": "BPE")", R"("type": "WordLevel")",
              "pre_tokenizer: ByteLevel with WordLevel"},
      refusal{R"("type": "BPE")", R"("type": "Unigram")",
              "pre_tokenizer: ByteLevel with Unigram"},
      refusal{R"("byte_fallback": false)", R"("byte_fallback": true)",
              "model.byte_fallback"},
      refusal{R"("dropout": null)", R"("dropout": 0.1)", "model.dropout"},
      refusal{R"("end_of_word_suffix": null)",
              R"("end_of_word_suffix": "</w>")", "model.end_of_word_suffix"},
      refusal{R"("unk_token": null)", R"("unk_token": "?")", "model.unk_token"},
      refusal{R"("normalizer": null)", R"("normalizer": {"type": "Nmt"})",
              "normalizer.type: Nmt"},
      refusal{R"("normalizer": null)",
              R"("normalizer": {"type": "NFC", "a": 1})", "normalizer.a"},
      refusal{R"("normalizer": null)",
              R"("normalizer": {"type": "Sequence", "normalizers": [
                {"type": "NFC"}, {"type": "Replace", "content": "",
                 "pattern": {"String": ""}}]})",
              "normalizer.normalizers[1].pattern"},
      refusal{R"("normalizer": null)",
              R"("normalizer": {"type": "Precompiled",
                 "precompiled_charsmap": "!"})",
              "normalizer.precompiled_charsmap: not base64"},
      refusal{R"("version": "1.0")", R"("news": 1)", "news"},
      refusal{R"({"type": "ByteLevel", "add_prefix_space": false,)",
              R"({"type": "UnicodeScripts", "add_prefix_space": false,)",
              "pre_tokenizer.type: UnicodeScripts"},
      refusal{R"({"type": "ByteLevel", "add_prefix_space": false,)",
              R"({"type": "Metaspace", "replacement": "__",)",
              "pre_tokenizer.trim_offsets"},
      refusal{R"("use_regex": true})", R"("use_regex": true, "more": 1})",
              "pre_tokenizer.more"},
      refusal{R"("post_processor": null)",
              R"("post_processor": {"type": "BertProcessing"})",
              "post_processor.sep"},
      refusal{R"("post_processor": null)",
              R"("post_processor": {"type": "Other"})",
              "post_processor.type: Other"},
      refusal{R"("post_processor": null)",
              R"("post_processor": {"type": "TemplateProcessing",
                 "single": [], "pair": [], "special_tokens": {}})",
              "post_processor.single"},
      refusal{R"("decoder": {"type": "ByteLevel"})",
              R"("decoder": {"type": "CTC"})", "decoder.type: CTC"},
      refusal{R"("lstrip": false)", R"("lstrip": 1)", "added_tokens[0].lstrip"},
      refusal{R"("content": "<s>")", R"("content": "")",
              "added_tokens[0].content"},
      refusal{R"("id": 3)", R"("id": 2)", "added_tokens[0]"},
      refusal{R"("id": 3)", R"("id": -3)", "added_tokens[0].id"},
      refusal{R"("id": 3)", R"("id": 99999999999)", "added_tokens[0].id"},
      refusal{R"("ab": 2)", R"("ab": 1)", "model.vocab.ab"},
      refusal{R"(["a b"])", R"([["a"]])", "model.merges[0]"},
      refusal{R"(["a b"])", R"([["a", "b c"]])", "model.merges[0]"},
      refusal{R"(["a b"])", R"({})", "model.merges"},
      refusal{R"("merges": ["a b"])", R"("more": 1)", "model.more"});
  CAPTURE(c.replacement);
  CHECK_THAT(message_of(file_with(c.part, c.replacement)), Contains(c.named));
}

TEST_CASE("pre-tokenizer steps are refused by their place") {
  auto with_steps = [](const std::string& steps) {
    return message_of(file_with(
        R"({"type": "ByteLevel", "add_prefix_space": false,
      "trim_offsets": true, "use_regex": true})",
        R"({"type": "Sequence", "pretokenizers": [)" + steps + "]}"));
  };
  CHECK_THAT(with_steps(R"({"type": "Sequence", "pretokenizers": []})"),
             Contains("pretokenizers[0].type: Sequence"));
  CHECK_THAT(with_steps(R"({"type": "ByteLevel"}, {"type": "Digits"})"),
             Contains("pre_tokenizer.pretokenizers[1]"));
  CHECK_THAT(with_steps(R"({"type": "Metaspace", "replacement": "__"})"),
             Contains("pretokenizers[0].replacement"));
  CHECK_THAT(with_steps(R"({"type": "Metaspace", "replacement": "_",
                            "prepend_scheme": "last"})"),
             Contains("pretokenizers[0].prepend_scheme: last"));
  CHECK_THAT(with_steps(R"({"type": "Split", "behavior": "Other",
                            "pattern": {"Regex": "a"}})"),
             Contains("pretokenizers[0].behavior: Other"));
  CHECK_THAT(with_steps(R"({"type": "Punctuation", "behavior": "Other"})"),
             Contains("pretokenizers[0].behavior: Other"));
}

TEST_CASE("a regex bomb in a tokenizer.json is an error when it is loaded") {
  auto data = read_tokenizer_json(
      file_with(R"({"type": "ByteLevel", "add_prefix_space": false,
      "trim_offsets": true, "use_regex": true})",
                R"({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "(a|a)*$"},
       "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false}]})"));
  REQUIRE(data.has_value());
  auto tok = tokenizer::make(*data);
  REQUIRE(tok.has_error());
  CHECK_THAT(tok.error().message, Contains("pre-tokenizer 0"));
}

TEST_CASE("files that are no tokenizer.json are errors") {
  CHECK(read_tokenizer_json("").has_error());
  CHECK(read_tokenizer_json("[]").has_error());
  CHECK(read_tokenizer_json("{").has_error());
  CHECK(read_tokenizer_json("{}").has_error());
  CHECK(read_tokenizer_json("\xFF").has_error());
  CHECK(read_tokenizer_json(std::string(100'000, '[')).has_error());
  std::string deep(R"({"normalizer": )");
  for (int i = 0; i < 100'000; ++i)
    deep += R"({"a":)";
  CHECK(read_tokenizer_json(deep).has_error());
  CHECK(read_tokenizer_json(std::string((64u << 20) + 1, ' ')).has_error());
}

TEST_CASE("no change to a file crashes its reader") {
  auto file = fixtures::read_file("tokenizer_splits.json");
  std::mt19937 random{9};
  int loaded = 0;
  for (int round = 0; round < 300; ++round) {
    auto mutated = file;
    auto range = round % 2 == 0 ? 2500 : mutated.size();
    mutated[random() % range] = static_cast<char>(0x20 + random() % 95);
    if (auto data = read_tokenizer_json(mutated))
      if (auto tok = tokenizer::make(std::move(*data)))
        loaded += fixtures::ids(**tok, "The fog <|end|> 12.").empty() ? 0 : 1;
  }
  CHECK(loaded > 0);
}
