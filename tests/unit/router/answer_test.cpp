#include "router/answer.hpp"
#include "tests/unit/router/byte_model.hpp"

#include <catch2/catch.hpp>

#include <simdjson.h>

using namespace troupe;
using namespace troupe::router;
using namespace troupe::test;
using protocol::finish;

namespace {

std::shared_ptr<const text::tokenizer> tokenizer() {
  static auto made = *text::tokenizer::make(byte_tokenizer_data());
  return made;
}

answer_plan plan(bool chat, bool stream) {
  answer_plan plan;
  plan.head.id = "chatcmpl-1";
  plan.head.model = "m";
  plan.chat = chat;
  plan.stream = stream;
  plan.max_tokens = 100;
  plan.prompts = {ids_of("Hi")};
  plan.tokenizer = tokenizer();
  plan.vocabulary_size = 258;
  return plan;
}

protocol::choice_tokens news(std::string_view text,
                             finish reason = finish::none) {
  protocol::choice_tokens out;
  out.tokens = ids_of(text);
  out.reason = reason;
  return out;
}

protocol::choice_tokens eos() {
  protocol::choice_tokens out;
  out.tokens = {im_end};
  out.stop_token = im_end;
  out.reason = finish::stop;
  return out;
}

/// The frames' JSON, without "data: " and [DONE].
std::vector<simdjson::dom::element> frames_of(simdjson::dom::parser* parsers,
                                              const std::string& frames) {
  std::vector<simdjson::dom::element> out;
  std::size_t at = 0;
  while (at < frames.size()) {
    auto end = frames.find("\n\n", at);
    auto body = frames.substr(at + 6, end - at - 6);
    at = end + 2;
    if (body != "[DONE]")
      out.push_back(parsers[out.size()].parse(body));
  }
  return out;
}

struct stream_fixture {
  simdjson::dom::parser parsers[32];
  std::string frames;

  void open(const answer& of) {
    for (std::uint32_t i = 0; i < of.openings(); ++i)
      of.open(i, frames);
  }

  /// (index, text, finish reason) of each frame with a choice.
  std::vector<std::string> told(bool chat = true) {
    std::vector<std::string> out;
    for (auto frame : frames_of(parsers, frames)) {
      if (frame["choices"].get_array().size() == 0) {
        out.push_back("usage");
        continue;
      }
      auto choice = frame["choices"].at(0);
      std::string text{
          std::string_view(chat ? choice["delta"]["content"] : choice["text"])};
      std::string reason;
      if (!choice["finish_reason"].is_null())
        reason = std::string_view(choice["finish_reason"]);
      out.push_back(std::to_string(std::uint64_t(choice["index"])) + "|" +
                    text + "|" + reason);
    }
    return out;
  }
};

} // namespace

TEST_CASE_METHOD(stream_fixture, "a chat stream begins with a role frame and "
                                 "ends with the last text and the reason") {
  answer a{plan(true, true)};
  open(a);
  CHECK(!*a.take(0, news("He"), frames));
  CHECK(!*a.take(0, news("y"), frames));
  CHECK(!*a.take(0, news("!", finish::length), frames));
  CHECK(a.complete());
  CHECK(told() ==
        std::vector<std::string>{"0||", "0|He|", "0|y|", "0|!|length"});
  CHECK(frames.find("\"role\":\"assistant\"") < frames.find("He"));
  CHECK(a.closing_frames() == "data: [DONE]\n\n");
}

TEST_CASE_METHOD(stream_fixture, "all choices get their role frame before any "
                                 "text, and end on their own") {
  auto p = plan(true, true);
  p.n = 2;
  answer a{p};
  open(a);
  *a.take(1, news("b"), frames);
  *a.take(1, eos(), frames);
  CHECK(!a.complete());
  *a.take(0, news("a", finish::length), frames);
  CHECK(a.complete());
  CHECK(told() == std::vector<std::string>{"0||", "1||", "1|b|", "1||stop",
                                           "0|a|length"});
}

TEST_CASE_METHOD(stream_fixture, "completions have no role frame and number "
                                 "choices by prompt and n") {
  auto p = plan(false, true);
  p.n = 2;
  p.prompts = {ids_of("x"), ids_of("y")};
  answer a{p};
  CHECK(a.openings() == 0);
  *a.take(3, news("d", finish::length), frames);
  *a.take(0, news("a", finish::length), frames);
  CHECK(told(false) == std::vector<std::string>{"3|d|length", "0|a|length"});
  CHECK(!a.complete());
}

TEST_CASE_METHOD(stream_fixture, "a stop string is held back, cut off and ends "
                                 "the choice") {
  auto p = plan(true, true);
  p.stop = {"END"};
  p.include_usage = true;
  answer a{p};
  open(a);
  CHECK(!*a.take(0, news("abE"), frames));
  CHECK(!*a.take(0, news("N"), frames));
  CHECK(*a.take(0, news("Dxyz"), frames));
  CHECK(a.complete());
  CHECK(told() == std::vector<std::string>{"0||", "0|ab|", "0||stop"});
  CHECK(frames.find("\"stop_reason\":\"END\"") != std::string::npos);
  // Five tokens up to the one that completed it; xyz never happened.
  CHECK(a.usage().completion_tokens == 5);
  auto before = frames;
  CHECK(!*a.take(0, news("more", finish::length), frames));
  CHECK(frames == before);
}

TEST_CASE_METHOD(stream_fixture, "what looked like a stop string comes out "
                                 "when the choice ends") {
  auto p = plan(true, true);
  p.stop = {"END"};
  answer a{p};
  open(a);
  *a.take(0, news("aEN", finish::length), frames);
  CHECK(told() == std::vector<std::string>{"0||", "0|aEN|length"});
}

TEST_CASE_METHOD(stream_fixture, "stop strings count only after min_tokens") {
  auto p = plan(true, true);
  p.stop = {"b"};
  p.min_tokens = 3;
  answer a{p};
  open(a);
  CHECK(!*a.take(0, news("abc"), frames));
  CHECK(*a.take(0, news("db"), frames));
  CHECK(told().back() == "0|d|stop");
}

TEST_CASE_METHOD(stream_fixture,
                 "characters of several tokens come out whole") {
  answer a{plan(true, true)};
  open(a);
  *a.take(0, news("\xc3"), frames);
  *a.take(0, news("\x89"), frames);
  *a.take(0, news("\xe2\x82", finish::length), frames);
  CHECK(told() == std::vector<std::string>{"0||", "0|É|", "0|\uFFFD|length"});
}

TEST_CASE("the token that stopped a choice is counted and not shown") {
  auto p = plan(false, false);
  p.stop_token_ids = {','};
  answer a{p};
  std::string frames;
  auto last = news("ab,", finish::stop);
  last.stop_token = ',';
  *a.take(0, last, frames);
  CHECK(frames.empty());
  simdjson::dom::parser parser;
  auto body = a.body();
  auto json = parser.parse(body);
  CHECK(std::string_view(json["choices"].at(0)["text"]) == "ab");
  CHECK(std::uint64_t(json["choices"].at(0)["stop_reason"]) == ',');
  CHECK(std::string_view(json["choices"].at(0)["finish_reason"]) == "stop");
  CHECK(std::uint64_t(json["usage"]["completion_tokens"]) == 3);
  p.include_stop_in_output = true;
  answer b{p};
  *b.take(0, last, frames);
  body = b.body();
  CHECK(std::string_view(parser.parse(body)["choices"].at(0)["text"]) == "ab,");
}

TEST_CASE("EOS gives no stop reason and no text, unless specials are shown and "
          "it did not end the choice") {
  auto p = plan(false, false);
  p.skip_special_tokens = false;
  answer a{p};
  std::string frames;
  auto ignored = news("a");
  ignored.tokens.push_back(im_end);
  *a.take(0, ignored, frames);
  *a.take(0, eos(), frames);
  simdjson::dom::parser parser;
  auto body = a.body();
  auto choice = parser.parse(body)["choices"].at(0);
  CHECK(std::string_view(choice["text"]) == "a<|im_end|>");
  CHECK(choice["stop_reason"].is_null());
}

TEST_CASE("usage counts a prompt once for all its choices") {
  auto p = plan(false, false);
  p.n = 2;
  p.prompts = {ids_of("abc"), ids_of("de")};
  answer a{p};
  std::string frames;
  for (std::uint32_t i = 0; i < 4; ++i) {
    auto one = news("xy", finish::length);
    one.cached_tokens = i % 2 == 0 ? 1 : 2;
    *a.take(i, one, frames);
  }
  CHECK(a.usage().prompt_tokens == 5);
  CHECK(a.usage().completion_tokens == 8);
  CHECK(a.usage().cached_tokens == 2);
}

TEST_CASE(
    "echo shows the prompt before the answer, with its log-probabilities") {
  auto p = plan(false, false);
  p.echo = true;
  p.prompt_texts = {"Hi"};
  p.with_logprobs = true;
  answer a{p};
  std::string frames;
  auto one = news("\xc3\x89", finish::length);
  one.prompt_logprobs = {{{'i', -2.0f}, {'e', -1.0f}}};
  one.logprobs = {{{0xc3, -0.5f}}, {{0x89, -0.25f}}};
  *a.take(0, one, frames);
  simdjson::dom::parser parser;
  auto body = a.body();
  auto choice = parser.parse(body)["choices"].at(0);
  CHECK(std::string_view(choice["text"]) == "HiÉ");
  auto logprobs = choice["logprobs"];
  CHECK(logprobs["token_logprobs"].at(0).is_null());
  CHECK(double(logprobs["token_logprobs"].at(1)) == -2.0);
  CHECK(double(logprobs["token_logprobs"].at(3)) == -0.25);
  CHECK(std::uint64_t(logprobs["text_offset"].at(1)) == 1);
  CHECK(std::uint64_t(logprobs["text_offset"].at(2)) == 2);
  CHECK(std::uint64_t(logprobs["text_offset"].at(3)) == 3);
  CHECK(logprobs["tokens"].get_array().size() == 4);
}

TEST_CASE("echo without new tokens drops what the replica drew") {
  auto p = plan(false, false);
  p.echo = p.echo_only = true;
  p.max_tokens = 0;
  p.prompt_texts = {"Hi"};
  answer a{p};
  std::string frames;
  CHECK(*a.take(0, news("x"), frames));
  CHECK(a.complete());
  CHECK(a.usage().completion_tokens == 0);
  simdjson::dom::parser parser;
  auto body = a.body();
  auto choice = parser.parse(body)["choices"].at(0);
  CHECK(std::string_view(choice["text"]) == "Hi");
  CHECK(std::string_view(choice["finish_reason"]) == "length");
}

TEST_CASE_METHOD(stream_fixture, "token ids go with the text that they begin") {
  auto p = plan(true, true);
  p.head.return_token_ids = true;
  answer a{p};
  open(a);
  *a.take(0, news("\xc3"), frames);
  *a.take(0, news("\x89", finish::length), frames);
  auto all = frames_of(parsers, frames);
  REQUIRE(all.size() == 2);
  CHECK(all[0]["prompt_token_ids"].get_array().size() == 2);
  CHECK(all[1]["choices"].at(0)["token_ids"].get_array().size() == 2);
}

TEST_CASE_METHOD(stream_fixture, "continuous usage is in every frame") {
  auto p = plan(true, true);
  p.include_usage = p.continuous_usage = p.head.include_usage = true;
  answer a{p};
  open(a);
  *a.take(0, news("a"), frames);
  *a.take(0, news("b", finish::length), frames);
  frames += a.closing_frames();
  auto all = frames_of(parsers, frames);
  REQUIRE(all.size() == 4);
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(std::uint64_t(all[i]["usage"]["completion_tokens"]) == i);
  CHECK(all[3]["choices"].get_array().size() == 0);
  CHECK(std::uint64_t(all[3]["usage"]["total_tokens"]) == 4);
}

TEST_CASE("news that cannot be true is an error, not a crash") {
  std::string frames;
  auto p = plan(false, false);
  p.max_tokens = 3;
  CHECK(!answer{p}.take(0, news("abcd"), frames));
  auto wrong = news("a");
  wrong.tokens = {-1};
  CHECK(!answer{p}.take(0, wrong, frames));
  wrong.tokens = {258};
  CHECK(!answer{p}.take(0, wrong, frames));
  p.with_logprobs = true;
  CHECK(!answer{p}.take(0, news("a"), frames));
  CHECK(!*answer{p}.take(99, news("a"), frames));
}
