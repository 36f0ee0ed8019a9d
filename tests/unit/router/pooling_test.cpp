#include "router/pooled_text.hpp"
#include "router/pooling.hpp"
#include "tests/unit/router/byte_model.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>

using namespace troupe;
using namespace troupe::router;
using namespace troupe::test;
using text::frame_place;
using text::pooled_output;

namespace {

constexpr token_id cls = im_start;
constexpr token_id sep = im_end;

/// Bytes, framed as BERT frames them, in a context of 12 tokens.
text::model_card card(pooled_output::kind what) {
  auto out = byte_model_card();
  out.max_model_len = 12;
  out.pooled.emplace().what = what;
  out.tokenizer.frame_one = {{cls, 0}, {frame_place::first_text, 0}, {sep, 0}};
  out.tokenizer.frame_two = {{cls, 0},
                             {frame_place::first_text, 0},
                             {sep, 0},
                             {frame_place::second_text, 1},
                             {sep, 1}};
  return out;
}

std::shared_ptr<const model_text> made_of(const text::model_card& card) {
  auto bytes = text::encode(card);
  return model_text::make(std::string{bytes.begin(), bytes.end()}).value();
}

protocol::model_route route() {
  protocol::model_route out;
  out.application = "app";
  out.model = "m";
  return out;
}

api::api_result<pooled_job> job(pooled_endpoint endpoint, std::string_view body,
                                const text::model_card& of) {
  generation_context context;
  context.request_id = "id";
  context.created = 5;
  context.deadline_ms = 9;
  return prepare(*parse_pooled_request(endpoint, body), route(), *made_of(of),
                 context);
}

std::vector<token_id> joined(std::initializer_list<std::vector<token_id>> of) {
  std::vector<token_id> out;
  for (const auto& one : of)
    out.insert(out.end(), one.begin(), one.end());
  return out;
}

protocol::choice_tokens vector_news(std::vector<float> vector) {
  protocol::choice_tokens out;
  out.vector = std::move(vector);
  out.reason = protocol::finish::stop;
  return out;
}

const auto embeds = pooled_output::kind::embedding;
const auto scores = pooled_output::kind::score;

} // namespace

TEST_CASE("each text is a choice, with what the tokenizer puts around it") {
  auto made =
      job(pooled_endpoint::embeddings, R"({"input":["ab","c"]})", card(embeds));
  auto& choices = made->what.choices;
  REQUIRE(choices.size() == 2);
  CHECK(choices[0].prompt == joined({{cls}, ids_of("ab"), {sep}}));
  CHECK(choices[1].prompt == joined({{cls}, ids_of("c"), {sep}}));
  CHECK(choices[0].second_text == 0);
  CHECK(choices[1].params.choice == 1);
  CHECK(choices[0].params.max_tokens == 0);
  CHECK(choices[0].deadline_ms == 9);
  CHECK(choices[0].request_id == "id");
  CHECK(choices[0].model == "m");
  CHECK(made->what.application == "app");
  CHECK(made->plan.head.id == "embd-id");
  CHECK(made->plan.prompt_tokens == std::vector<std::uint32_t>{4, 3});
  auto bare = job(pooled_endpoint::embeddings,
                  R"({"input":"ab","add_special_tokens":false})", card(embeds));
  CHECK(bare->what.choices[0].prompt == ids_of("ab"));
  auto ids =
      job(pooled_endpoint::embeddings, R"({"input":[97,98]})", card(embeds));
  CHECK(ids->what.choices[0].prompt == ids_of("ab"));
}

TEST_CASE("a text that is too long is refused, or loses its end") {
  auto refuse = [](std::string_view body) {
    return job(pooled_endpoint::embeddings, body, card(embeds)).error();
  };
  auto wrong = refuse(R"({"input":["a","12345678901"]})");
  CHECK(wrong.param == "input[1]");
  CHECK(wrong.code == "context_length_exceeded");
  CHECK(refuse(R"({"input":"a","truncate_prompt_tokens":13})").param ==
        "truncate_prompt_tokens");
  // No room for anything beside the frame.
  CHECK(refuse(R"({"input":"a","truncate_prompt_tokens":2})").param == "input");
  auto prompt = [](std::string_view body) {
    return job(pooled_endpoint::embeddings, body, card(embeds))
        ->what.choices.at(0)
        .prompt;
  };
  CHECK(prompt(R"({"input":"12345678901","truncate_prompt_tokens":-1})") ==
        joined({{cls}, ids_of("1234567890"), {sep}}));
  CHECK(prompt(R"({"input":"abcd","truncate_prompt_tokens":5})") ==
        joined({{cls}, ids_of("abc"), {sep}}));
  CHECK(prompt(R"({"input":[1,2,3],"truncate_prompt_tokens":2})") ==
        std::vector<token_id>{1, 2});
  auto endless = R"({"truncate_prompt_tokens":-1,"input":")" +
                 std::string(100'000, 'x') + "\"}";
  CHECK(prompt(endless).size() == 12);
}

TEST_CASE("two texts are one prompt that says where the second begins") {
  auto made = job(pooled_endpoint::score,
                  R"({"text_1":"ab","text_2":["c","de"]})", card(scores));
  auto& choices = made->what.choices;
  REQUIRE(choices.size() == 2);
  CHECK(choices[0].prompt ==
        joined({{cls}, ids_of("ab"), {sep}, ids_of("c"), {sep}}));
  CHECK(choices[1].prompt ==
        joined({{cls}, ids_of("ab"), {sep}, ids_of("de"), {sep}}));
  CHECK(choices[1].second_text == 4);
  auto pairs = job(pooled_endpoint::score,
                   R"({"text_1":["a","b"],"text_2":["c","d"]})", card(scores));
  CHECK(pairs->what.choices[1].prompt ==
        joined({{cls}, ids_of("b"), {sep}, ids_of("d"), {sep}}));
  auto untyped = card(scores);
  for (auto& place : untyped.tokenizer.frame_two)
    place.type = 0;
  auto same =
      job(pooled_endpoint::score, R"({"text_1":"ab","text_2":"c"})", untyped);
  CHECK(same->what.choices[0].second_text == 4);
}

TEST_CASE("of two texts the longer one is cut first") {
  auto pair = [](const std::string& first, const std::string& second) {
    auto made = job(pooled_endpoint::rerank,
                    R"({"truncate_prompt_tokens":-1,"query":")" + first +
                        R"(","documents":[")" + second + "\"]}",
                    card(scores));
    auto& ids = made.value().what.choices.at(0).prompt;
    std::string out;
    for (std::size_t i = 1; i + 1 < ids.size(); ++i)
      out += ids[i] == sep ? '|' : static_cast<char>(ids[i]);
    return out;
  };
  CHECK(pair("abc", "123456") == "abc|123456");
  CHECK(pair("abc", "123456789") == "abc|123456");
  CHECK(pair("abcdefghi", "12") == "abcdefg|12");
  CHECK(pair("abcdef", "1234567") == "abcd|12345");
  CHECK(pair("abcdefg", "123456") == "abcde|1234");
  auto wrong =
      job(pooled_endpoint::rerank,
          R"({"query":"abcdef","documents":["1","1234567"]})", card(scores));
  CHECK(wrong.error().param == "documents[1]");
}

TEST_CASE("a model that gives something else says so") {
  auto embedding = R"({"input":"a"})";
  auto pair = R"({"text_1":"a","text_2":"b"})";
  CHECK(job(pooled_endpoint::embeddings, embedding, byte_model_card())
            .error()
            .param == "model");
  CHECK(
      job(pooled_endpoint::embeddings, embedding, card(scores)).error().param ==
      "model");
  CHECK(job(pooled_endpoint::score, pair, card(embeds)).error().param ==
        "model");
  auto text = prepare(*parse_request(false, R"({"prompt":"a"})"), route(),
                      made_of(card(embeds)), {});
  CHECK(text.error().param == "model");
}

TEST_CASE("embeddings are cut only where the model's makers say so") {
  auto of = card(embeds);
  of.pooled->size = 8;
  auto asked = [&](int dimensions) {
    auto made = job(
        pooled_endpoint::embeddings,
        R"({"input":"a","dimensions":)" + std::to_string(dimensions) + "}", of);
    return made ? std::string{} : made.error().param;
  };
  CHECK(asked(8).empty());
  CHECK(asked(4) == "dimensions");
  of.pooled->may_be_cut = true;
  CHECK(asked(4).empty());
  CHECK(asked(9) == "dimensions");
  of.pooled->lengths = {2, 4};
  CHECK(asked(4).empty());
  CHECK(asked(3) == "dimensions");
}

TEST_CASE("the answer holds the vectors in the order of the texts") {
  auto of = card(embeds);
  of.pooled->size = 2;
  auto made = job(pooled_endpoint::embeddings, R"({"input":["a","bc"]})", of);
  pooled_answer answer{made->plan};
  std::string frames;
  CHECK_FALSE(answer.streams());
  CHECK(answer.choices() == 2);
  CHECK_FALSE(*answer.take(1, vector_news({3, 4}), frames));
  CHECK_FALSE(answer.complete());
  CHECK_FALSE(*answer.take(0, vector_news({1, 2}), frames));
  CHECK(answer.complete());
  auto body = answer.body();
  CHECK(body.find(R"("index":0,"object":"embedding","embedding":[1.0,2.0])") !=
        std::string::npos);
  CHECK(body.find(R"("index":1,"object":"embedding","embedding":[3.0,4.0])") !=
        std::string::npos);
  CHECK(answer.usage().prompt_tokens == 7);
  CHECK(frames.empty());
}

TEST_CASE("an embedding that is cut has length one") {
  auto of = card(embeds);
  of.pooled->size = 3;
  of.pooled->may_be_cut = true;
  auto made =
      job(pooled_endpoint::embeddings, R"({"input":"a","dimensions":2})", of);
  pooled_answer answer{made->plan};
  std::string frames;
  REQUIRE(answer.take(0, vector_news({0.3f, 0.4f, 0.5f}), frames).has_value());
  CHECK(answer.body().find("\"embedding\":[0.6,0.8]") != std::string::npos);
}

TEST_CASE("a ranking shows the best documents first") {
  auto made =
      job(pooled_endpoint::rerank,
          R"({"query":"q","documents":["a","b","c"],"top_n":2})", card(scores));
  CHECK(made->plan.head.id == "rerank-id");
  pooled_answer answer{made->plan};
  std::string frames;
  float of[] = {0.25f, 0.75f, 0.75f};
  for (std::uint32_t i = 0; i < 3; ++i)
    REQUIRE(answer.take(i, vector_news({of[i]}), frames).has_value());
  CHECK(answer.body().find(
            R"("results":[{"index":1,"document":{"text":"b"},)"
            R"("relevance_score":0.75},{"index":2,"document":{"text":"c"},)"
            R"("relevance_score":0.75}])") != std::string::npos);
  auto bare = job(pooled_endpoint::rerank,
                  R"({"query":"q","documents":["a"],"return_documents":false})",
                  card(scores));
  pooled_answer short_answer{bare->plan};
  REQUIRE(short_answer.take(0, vector_news({1}), frames).has_value());
  CHECK(short_answer.body().find("document\"") == std::string::npos);
}

TEST_CASE("a vector that cannot be true is an error") {
  auto made = job(pooled_endpoint::score, R"({"text_1":"a","text_2":"b"})",
                  card(scores));
  std::string frames;
  for (auto& wrong :
       {vector_news({}), vector_news({1, 2}), vector_news({std::nanf("")}),
        vector_news({std::numeric_limits<float>::infinity()})})
    CHECK_FALSE(pooled_answer{made->plan}.take(0, wrong, frames).has_value());
  auto unfinished = vector_news({1});
  unfinished.reason = protocol::finish::length;
  CHECK_FALSE(
      pooled_answer{made->plan}.take(0, unfinished, frames).has_value());
}
