#include "engine/text/model_card.hpp"

#include "tests/unit/text/fixtures.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace troupe;
using namespace troupe::text;

namespace {

model_card full_card() {
  model_card card;
  card.architecture = "llama";
  card.tokenizer = fixtures::data("splits");
  card.tokenizer.normalizer.emplace_back();
  card.tokenizer.ignore_merges = true;
  card.tokenizer.eos = 3;
  card.tokenizer.unknown = 4;
  card.chat_template = "{{ messages }}";
  card.eos_ids = {2, 7};
  card.max_model_len = 4096;
  card.vocabulary_size = 49152;
  return card;
}

} // namespace

TEST_CASE("a model card survives its encoding") {
  auto card = full_card();
  REQUIRE(card.tokenizer.pre_tokenizer.size() == 4);
  REQUIRE(card.tokenizer.added_options.size() > 4);
  CHECK(decode_model_card(encode(card)).value() == card);
  CHECK(decode_model_card(encode(model_card{})).value() == model_card{});
  card.pooled.emplace();
  CHECK(decode_model_card(encode(card)).value() == card);
  card.pooled = {.what = pooled_output::kind::score,
                 .size = 384,
                 .may_be_cut = true,
                 .lengths = {64, 128}};
  CHECK(decode_model_card(encode(card)).value() == card);
}

TEST_CASE("tokenizers survive their encoding") {
  for (const char* name : {"words", "prefix", "llama3", "kept", "splits",
                           "spm_bpe", "spm_bpe_first", "bpe_unknown",
                           "unigram_lower", "charsmap", "wordpiece"}) {
    auto data = fixtures::data(name);
    CHECK(decode_tokenizer_data(encode(data)).value() == data);
  }
}

TEST_CASE("a card that is cut short is refused") {
  auto bytes = encode(full_card());
  auto whole = full_card();
  int accepted = 0;
  for (std::size_t size = 0; size < bytes.size(); size += 7) {
    auto card = decode_model_card(codec::bytes_view{bytes}.first(size));
    // Cut between two fields, the rest reads as their defaults.
    accepted += card && card->tokenizer == whole.tokenizer ? 1 : 0;
  }
  CHECK(accepted <= 6);
}

TEST_CASE("no bytes crash the reader of cards") {
  auto bytes = encode(full_card());
  std::mt19937 random{5};
  int done = 0;
  for (int round = 0; round < 1500; ++round) {
    auto mutated = bytes;
    for (int i = 0; i < 3; ++i)
      mutated[random() % (i == 0 ? 64 : mutated.size())] =
          static_cast<std::uint8_t>(random());
    if (auto card = decode_model_card(mutated))
      CHECK(encode(*card).size() <= mutated.size() + 64);
    ++done;
  }
  CHECK(done == 1500);
}

TEST_CASE("an unknown field of a card is refused by number") {
  codec::writer out;
  out.put(999, std::string_view{"x"});
  auto card = decode_model_card(out.take());
  REQUIRE(card.has_error());
  CHECK(card.error().message.find("999") != std::string::npos);
}
