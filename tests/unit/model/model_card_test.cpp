#include "engine/model/model_card.hpp"
#include "engine/weights/gguf.hpp"

#include "engine/text/tokenizer.hpp"
#include "tests/unit/model/small_model.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::test;
using text::token_kind;

namespace {

result<text::model_card> read(const gguf_builder& builder) {
  auto bytes = builder.build();
  auto file = weights::gguf_file::parse(as_bytes(bytes), "small.gguf");
  REQUIRE(file.has_value());
  auto config = model::read_model_config(**file);
  REQUIRE(config.has_value());
  return model::read_model_card(**file, *config);
}

void refused(const gguf_builder& builder, errc code, const std::string& words) {
  auto card = read(builder);
  REQUIRE(!card);
  CHECK_THAT(card.error().message, Catch::Contains(words));
  CHECK(card.error().code == code);
}

using ids = std::vector<text::token_id>;

ids encode(const text::model_card& card, std::string_view text) {
  ids out;
  text::tokenizer::make(card.tokenizer).value()->encode(text, false, out);
  return out;
}

} // namespace

TEST_CASE("a model card is read from the tokenizer's metadata") {
  auto card = read(small_model().string("tokenizer.chat_template", "{{ x }}"));
  REQUIRE(card.has_value());
  CHECK(card->architecture == "llama");
  CHECK(card->max_model_len == 32);
  CHECK(card->vocabulary_size == 6);
  CHECK(card->chat_template == "{{ x }}");
  const auto& tokenizer = card->tokenizer;
  CHECK(tokenizer.vocabulary[4] == "ab");
  CHECK(tokenizer.kinds == std::vector{token_kind::special, token_kind::special,
                                       token_kind::normal, token_kind::normal,
                                       token_kind::normal, token_kind::added});
  CHECK(tokenizer.merges == std::vector<std::string>{"a b"});
  CHECK(!tokenizer.pre_tokenizer.empty());
  CHECK(tokenizer.bos == 0);
  CHECK(tokenizer.eos == 0);
  CHECK(tokenizer.unknown == -1);
  CHECK(!tokenizer.add_bos);
  CHECK(tokenizer.normalizer.empty());
}

TEST_CASE("a SentencePiece BPE is read with its scores") {
  auto file = small_model()
                  .string("tokenizer.ggml.model", "llama")
                  .strings("tokenizer.ggml.tokens",
                           {"<unk>", "<s>", "\u2581", "a", "\u2581a", "b"})
                  .f32s("tokenizer.ggml.scores", {0, 0, -1, -2, -3, -4})
                  .u32("tokenizer.ggml.bos_token_id", 1)
                  .u32("tokenizer.ggml.unknown_token_id", 0);
  auto card = read(file);
  REQUIRE(card.has_value());
  CHECK(card->tokenizer.model == text::model_kind::bpe);
  CHECK(card->tokenizer.add_bos);
  CHECK(encode(*card, "a ab") == ids{4, 4, 5});
  card = read(file.boolean("tokenizer.ggml.add_space_prefix", false));
  CHECK(encode(*card, "a ab") == ids{3, 4, 5});
  refused(file.f32s("tokenizer.ggml.scores", {0}), errc::corrupt,
          "has 1 entries, not 6");
  refused(file.erase("tokenizer.ggml.scores"), errc::corrupt, "is missing");
}

TEST_CASE("a unigram is read with what is put after texts") {
  auto file = small_model()
                  .string("tokenizer.ggml.model", "t5")
                  .strings("tokenizer.ggml.tokens",
                           {"<unk>", "</s>", "\u2581", "a", "\u2581a", "b"})
                  .f32s("tokenizer.ggml.scores", {0, 0, -1, -2, -2.5, -4})
                  .u32("tokenizer.ggml.eos_token_id", 1)
                  .boolean("tokenizer.ggml.add_space_prefix", true)
                  .boolean("tokenizer.ggml.remove_extra_whitespaces", true)
                  .u32("tokenizer.ggml.unknown_token_id", 0);
  auto card = read(file);
  REQUIRE(card.has_value());
  CHECK(encode(*card, " a   ab ") == ids{4, 4, 5});
  CHECK(encode(*card, "xa") == ids{2, 0, 3});
  CHECK(card->tokenizer.frame_one ==
        std::vector<text::frame_place>{{text::frame_place::first_text}, {1}});
  refused(file.erase("tokenizer.ggml.unknown_token_id"), errc::corrupt,
          "is missing");
}

TEST_CASE("a WordPiece is read with its words and their parts") {
  auto file = small_model()
                  .string("tokenizer.ggml.model", "bert")
                  .strings("tokenizer.ggml.tokens",
                           {"[CLS]", "[SEP]", "[UNK]", "\u2581ab", "b", "c"})
                  .u32("tokenizer.ggml.cls_token_id", 0)
                  .u32("tokenizer.ggml.seperator_token_id", 1)
                  .u32("tokenizer.ggml.unknown_token_id", 2);
  auto card = read(file);
  REQUIRE(card.has_value());
  CHECK(encode(*card, "ABc ab \u00C2b,") == ids{3, 5, 3, 3, 2});
  CHECK(card->tokenizer.frame_one.size() == 3);
  CHECK(card->tokenizer.frame_two.size() == 5);
  refused(file.erase("tokenizer.ggml.unknown_token_id"), errc::corrupt,
          "is missing");
}

TEST_CASE("tokenizers of other kinds are refused by name") {
  refused(small_model().string("tokenizer.ggml.model", "rwkv"),
          errc::unsupported, "'rwkv': not supported yet");
  refused(small_model().string("tokenizer.ggml.model", "\n"), errc::unsupported,
          "not 'gpt2'");
  refused(small_model().string("tokenizer.ggml.pre", "not-known"),
          errc::unsupported, "(not-known)");
}

TEST_CASE("lists that do not fit the vocabulary are refused") {
  refused(small_model().strings("tokenizer.ggml.tokens", {"a", "b"}),
          errc::corrupt, "has 2 entries, but the embedding has 6 rows");
  refused(small_model().i32s("tokenizer.ggml.token_type", {1}), errc::corrupt,
          "has 1 entries, not 6");
  refused(small_model().i32s("tokenizer.ggml.token_type", {1, 1, 1, 1, 1, 7}),
          errc::corrupt, "holds 7");
  refused(small_model().string("tokenizer.ggml.tokens", "a"), errc::corrupt,
          "not a list of texts");
  for (std::string name : {"tokens", "merges", "model", "pre"})
    refused(small_model().erase("tokenizer.ggml." + name), errc::corrupt,
            "missing");
}

TEST_CASE("special ids outside the vocabulary are refused") {
  for (std::string name : {"bos_token_id", "eos_token_id", "unknown_token_id",
                           "eot_token_id", "eom_token_id"})
    for (std::uint32_t id : {6u, 0x80000000u, ~0u})
      refused(small_model().u32("tokenizer.ggml." + name, id), errc::corrupt,
              name);
}

TEST_CASE("bos is added as the file says") {
  auto card = read(small_model().boolean("tokenizer.ggml.add_bos_token", true));
  REQUIRE(card.has_value());
  CHECK(card->tokenizer.add_bos);
  refused(small_model()
              .boolean("tokenizer.ggml.add_bos_token", true)
              .erase("tokenizer.ggml.bos_token_id"),
          errc::corrupt, "bos_token_id");
  card = read(small_model().string("tokenizer.ggml.pre", "llama-bpe"));
  REQUIRE(card.has_value());
  CHECK(card->tokenizer.add_bos);
  CHECK(card->tokenizer.ignore_merges);
}

TEST_CASE("a choice ends at eos, eot and the template's ends of turn") {
  CHECK(read(small_model())->eos_ids == ids{0});
  CHECK(read(small_model().erase("tokenizer.ggml.eos_token_id"))
            ->eos_ids.empty());
  CHECK(read(small_model().u32("tokenizer.ggml.eot_token_id", 1))->eos_ids ==
        ids{0, 1});
  auto file = small_model().string("tokenizer.chat_template",
                                   "{{ message }}<|im_end|>");
  CHECK(read(file)->eos_ids == ids{0, 1});
  CHECK(read(file.u32("tokenizer.ggml.eos_token_id", 1))->eos_ids == ids{1});
  // The same spelling as plain text is not an end.
  file = small_model().string("tokenizer.chat_template", "<|im_end|>");
  file.i32s("tokenizer.ggml.token_type", {3, 1, 1, 1, 1, 1});
  CHECK(read(file)->eos_ids == ids{0});
}
