#include "router/api/openai.hpp"

#include <catch2/catch.hpp>
#include <limits>

using namespace troupe;
using namespace troupe::api;

namespace {

answer_head head() {
  return {"chatcmpl-1", "m", 17, "class-1", false, false};
}

choice_piece piece(std::string text) {
  choice_piece piece;
  piece.text = std::move(text);
  return piece;
}

bool has(const std::string& body, std::string_view part) {
  return body.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("a chat body is OpenAI's") {
  auto choice = piece("hi \"you\"\n");
  choice.finish_reason = "stop";
  choice.stop_reason = token_id{28};
  CHECK(chat_body(head(), {choice}, {5, 2, 4}) ==
        R"({"id":"chatcmpl-1","object":"chat.completion","created":17,)"
        R"("model":"m","choices":[{"index":0,"message":{"role":"assistant",)"
        R"("content":"hi \"you\"\n","refusal":null,"annotations":null,)"
        R"("audio":null,"function_call":null},"logprobs":null,)"
        R"("finish_reason":"stop","stop_reason":28}],"service_tier":null,)"
        R"("system_fingerprint":"class-1","usage":{"prompt_tokens":5,)"
        R"("total_tokens":7,"completion_tokens":2,"prompt_tokens_details":)"
        R"({"cached_tokens":4},"completion_tokens_details":null}})");
}

TEST_CASE("frames of a chat begin with the role and carry deltas") {
  CHECK(chat_role_frame(head(), 1, {}, {}) ==
        R"(data: {"id":"chatcmpl-1","object":"chat.completion.chunk",)"
        R"("created":17,"model":"m","choices":[{"index":1,"delta":)"
        R"({"role":"assistant","content":""},"logprobs":null,)"
        R"("finish_reason":null}],"system_fingerprint":"class-1"})"
        "\n\n");
  CHECK(chat_frame(head(), piece("a"), {}) ==
        R"(data: {"id":"chatcmpl-1","object":"chat.completion.chunk",)"
        R"("created":17,"model":"m","choices":[{"index":0,"delta":)"
        R"({"content":"a"},"logprobs":null,"finish_reason":null,)"
        R"("stop_reason":null}],"system_fingerprint":"class-1"})"
        "\n\n");
}

TEST_CASE("ids are shown when they were asked for and only then") {
  auto choice = piece("a");
  choice.token_ids = {1, 2};
  choice.prompt_token_ids = {3};
  CHECK_FALSE(has(chat_body(head(), {choice}, {}), "token_ids"));
  CHECK_FALSE(has(chat_frame(head(), choice, {}), "token_ids"));
  CHECK_FALSE(has(completion_frame(head(), choice, {}), "token_ids"));
  auto asked = head();
  asked.return_token_ids = true;
  CHECK(has(chat_body(asked, {choice}, {}), R"("token_ids":[1,2])"));
  CHECK(has(chat_body(asked, {choice}, {}), R"("prompt_token_ids":[3])"));
  CHECK(has(completion_body(asked, {choice}, {}), R"("token_ids":[1,2])"));
  CHECK(has(completion_body(asked, {choice}, {}), R"("prompt_token_ids":[3])"));
  CHECK(has(chat_frame(asked, choice, {}), R"("token_ids":[1,2])"));
  CHECK(has(chat_role_frame(asked, 0, {3}, {}), R"("prompt_token_ids":[3])"));
  CHECK(has(completion_frame(asked, choice, {}), R"("prompt_token_ids":[3])"));
}

TEST_CASE("frames without usage say null when usage was asked for") {
  auto asked = head();
  asked.include_usage = true;
  CHECK(has(chat_frame(asked, piece("a"), {}), R"("usage":null)"));
  CHECK(has(chat_role_frame(asked, 0, {}, {}), R"("usage":null)"));
  CHECK(has(completion_frame(asked, piece("a"), {}), R"("usage":null)"));
  CHECK_FALSE(has(chat_frame(head(), piece("a"), {}), "usage"));
  CHECK(has(chat_frame(asked, piece("a"), usage{3, 1, 0}),
            R"("usage":{"prompt_tokens":3,"total_tokens":4,)"));
  CHECK(has(usage_frame(asked, true, {3, 1, 0}),
            R"("object":"chat.completion.chunk","created":17,"model":"m",)"
            R"("choices":[])"));
  CHECK(has(usage_frame(asked, false, {3, 1, 0}), "\"text_completion\""));
}

TEST_CASE("a token that is no text shows its exact bytes") {
  auto choice = piece("");
  choice.with_logprobs = true;
  shown_token token;
  token.bytes = "\xe2\x80";
  token.logprob = -std::numeric_limits<float>::infinity();
  choice.tokens = {token};
  CHECK(has(chat_body(head(), {choice}, {}),
            "{\"token\":\"\xef\xbf\xbd\",\"logprob\":-9999.0,"
            "\"bytes\":[226,128],\"top_logprobs\":[]}"));
}

TEST_CASE("candidates of equal text stand once in a completion") {
  auto choice = piece("a");
  choice.with_logprobs = true;
  shown_token token;
  token.bytes = "a";
  token.logprob = -0.5f;
  token.top = {{"a", -0.5f}, {"\xff", -1}, {"\xfe", -2}, {"b", -3}};
  shown_token first;
  first.bytes = "p";
  choice.tokens = {first, token};
  auto body = completion_body(head(), {choice}, {});
  CHECK(has(body, "\"top_logprobs\":[null,{\"a\":-0.5,\"\xef\xbf\xbd\":-1.0,"
                  "\"b\":-3.0}]"));
  CHECK(has(body, R"("token_logprobs":[null,-0.5])"));
}

TEST_CASE("a stop string is told as the reason") {
  auto choice = piece("");
  choice.finish_reason = "stop";
  choice.stop_reason = std::string{"la "};
  CHECK(has(chat_frame(head(), choice, {}),
            R"("finish_reason":"stop","stop_reason":"la ")"));
}

TEST_CASE("models are listed with OpenAI's keys") {
  model_entry model{"a/b", 17, 2048, "embed"};
  CHECK(model_body(model) ==
        R"({"id":"a/b","object":"model","created":17,)"
        R"("owned_by":"organization-owner","permission":[],)"
        R"("max_model_len":2048,"task":"embed"})");
  CHECK(models_body({model}) ==
        R"({"object":"list","data":[)" + model_body(model) + "]}");
  CHECK(models_body({}) == R"({"object":"list","data":[]})");
  CHECK(has(model_body({"a", 1}), R"("max_model_len":null,"task":null)"));
}
