#include "request_bodies.hpp"

#include <catch2/catch.hpp>
#include <cfloat>
#include <cmath>
#include <vector>

using namespace troupe;
using namespace troupe::api;

namespace {

/// Both endpoints take or refuse the fields alike.
void check_both(const std::string& fields, const std::string& param) {
  CAPTURE(fields);
  CHECK(chat_refuses(chat_with(fields)) == param);
  CHECK(completion_refuses(completion_with(fields)) == param);
}

void check_values(const std::string& name,
                  const std::vector<std::string>& right,
                  const std::vector<std::string>& wrong) {
  for (const auto& value : right)
    check_both("\"" + name + "\":" + value, "");
  for (const auto& value : wrong)
    check_both("\"" + name + "\":" + value, name);
}

sampling_params params_of(const std::string& fields) {
  return parse_chat_request(chat_with(fields)).value().params;
}

} // namespace

TEST_CASE("max_tokens is a positive integer of 31 bits") {
  check_values("max_tokens", {"1", "12", "2147483647"},
               {"0", "-1", "2147483648", "9223372036854775808", "1e300", "1.5",
                "-9223372036854775808", "18446744073709551615"});
}

TEST_CASE("max_completion_tokens wins over max_tokens in a chat") {
  auto chat = parse_chat_request(
      chat_with(R"("max_completion_tokens":4,"max_tokens":12)"));
  CHECK(chat->params.max_tokens == 4);
  CHECK(chat->max_tokens_given);
  CHECK(chat->max_tokens_field == "max_completion_tokens");
  CHECK(chat_refuses(chat_with(
            R"("max_completion_tokens":4,"max_tokens":0)")) == "max_tokens");
  CHECK(chat_refuses(chat_with("\"max_completion_tokens\":0")) ==
        "max_completion_tokens");
}

TEST_CASE("without max_tokens a chat is open and a completion gets 16") {
  auto chat = parse_chat_request(chat_with(""));
  CHECK(chat->params.max_tokens == 0);
  CHECK_FALSE(chat->max_tokens_given);
  auto completion = parse_completion_request(completion_with(""));
  CHECK(completion->params.max_tokens == 16);
  CHECK_FALSE(completion->max_tokens_given);
}

TEST_CASE("max_tokens 0 is for a completion with echo alone") {
  CHECK(completion_refuses(completion_with("\"max_tokens\":0")) ==
        "max_tokens");
  auto echo =
      parse_completion_request(completion_with("\"max_tokens\":0,\"echo\":1"));
  CHECK(refused(echo) == "echo");
  echo = parse_completion_request(
      completion_with("\"max_tokens\":0,\"echo\":true"));
  REQUIRE(echo.has_value());
  CHECK(echo->params.max_tokens == 0);
  CHECK(echo->max_tokens_given);
}

TEST_CASE("n is 1 to 128 and best_of must equal it") {
  check_values("n", {"1", "128"},
               {"0", "-1", "129", "4611686018427387904", "1.5"});
  check_values("best_of", {"1"},
               {"0", "2", "129", "4611686018427387904", "-1"});
  check_both("\"n\":3,\"best_of\":3", "");
  check_both("\"n\":2,\"best_of\":1", "best_of");
}

TEST_CASE("temperature is 0 to 2, and greedy where it is next to 0") {
  check_values("temperature", {"0", "-0", "0.7", "2", "1e-40", "4.9e-324"},
               {"-1", "-1e-9", "2.0000001", "3", "1e300"});
  CHECK(params_of("").temperature == 1);
  CHECK(params_of("\"temperature\":0.7").temperature == 0.7f);
  for (const char* tiny : {"-0", "1e-40", "4.9e-324", "0.000009"}) {
    auto params = params_of("\"temperature\":" + std::string{tiny});
    CHECK(params.temperature == 0);
    CHECK_FALSE(std::signbit(params.temperature));
  }
}

TEST_CASE("top_p is above 0 and at most 1") {
  check_values("top_p", {"1", "0.5", "1e-40", "4.9e-324"},
               {"0", "-0", "1.0000001", "2", "-0.5"});
  CHECK(params_of("\"top_p\":0.5").top_p == 0.5f);
  CHECK(params_of("\"top_p\":4.9e-324").top_p >= FLT_MIN);
}

TEST_CASE("top_k is off at -1 and 0 and positive else") {
  check_values("top_k", {"-1", "0", "1", "2147483647"},
               {"-2", "-5", "2147483648", "1.5"});
  CHECK(params_of("\"top_k\":-1").top_k == 0);
  CHECK(params_of("\"top_k\":20").top_k == 20);
}

TEST_CASE("min_p is 0 to 1") {
  check_values("min_p", {"0", "0.05", "1"}, {"-0.1", "2", "1.0000001"});
  CHECK(params_of("\"min_p\":0.05").min_p == 0.05f);
}

TEST_CASE("penalties have their ranges") {
  for (const char* name : {"frequency_penalty", "presence_penalty"})
    check_values(name, {"-2", "0", "2"},
                 {"-2.0001", "3", "1e9", "-1e9", "2.0000001"});
  check_values("repetition_penalty", {"0.01", "1", "1.1", "100"},
               {"0", "-1", "1e9", "-1e9", "1e-30", "101"});
  auto params = params_of(R"("frequency_penalty":1.5,"presence_penalty":-0.5,)"
                          R"("repetition_penalty":1.25)");
  CHECK(params.frequency_penalty == 1.5f);
  CHECK(params.presence_penalty == -0.5f);
  CHECK(params.repetition_penalty == 1.25f);
}

TEST_CASE("a seed is any integer of 64 bits") {
  check_values("seed",
               {"0", "-1", "18446744073709551615", "-9223372036854775808"},
               {"18446744073709551616", "1.5", "1e30"});
  auto seed = [](const char* text) {
    return parse_chat_request(chat_with("\"seed\":" + std::string{text}))->seed;
  };
  CHECK(seed("1234") == 1234);
  CHECK(seed("18446744073709551615") == ~std::uint64_t{0});
  CHECK(seed("-2") == ~std::uint64_t{1});
  CHECK(seed("\"18446744073709551615\"") == ~std::uint64_t{0});
  CHECK_FALSE(seed("null"));
}

TEST_CASE("logit_bias maps ids to bounded numbers") {
  check_values("logit_bias", {"{}", R"({"504":100,"0":-100,"7":0.5})"},
               {R"({"-1":1})", R"({"99999999999":5})", R"({"abc":1})",
                R"({"5":1e9})", R"({"5":101})", R"({"5":null})", R"({"05":1})",
                R"({"":1})", R"({"+5":1})", R"({" 5":1})",
                R"({"2147483648":1})", R"({"5":true})", "[]", "5"});
  auto bias = params_of(R"("logit_bias":{"504":100,"0":-0.5})").logit_bias;
  CHECK(bias == std::vector<std::pair<token_id, float>>{{504, 100}, {0, -0.5}});
}

TEST_CASE("logit_bias has at most 1024 entries") {
  auto entries = [](int count) {
    std::string text = "\"0\":1";
    for (int i = 1; i < count; ++i)
      text += ",\"" + std::to_string(i) + "\":1";
    return "\"logit_bias\":{" + text + "}";
  };
  check_both(entries(1024), "");
  check_both(entries(1025), "logit_bias");
  check_both(entries(100'000), "logit_bias");
}

TEST_CASE("stop is a string or up to four, none empty or long") {
  auto quoted = [](const std::string& text) { return "\"" + text + "\""; };
  auto longest = quoted(std::string(1024, 'x'));
  auto too_long = quoted(std::string(1025, 'x'));
  auto huge = quoted(std::string(1'000'000, 'x'));
  std::string many = "[\"a\"";
  for (int i = 0; i < 9999; ++i)
    many += ",\"a\"";
  check_values("stop", {"\"a\"", "[]", R"(["a","b","c","d"])", longest},
               {"\"\"", R"([""])", R"(["a",5])", R"(["a","b","c","d","e"])",
                too_long, huge, many + "]", "{}", "5"});
  CHECK(parse_chat_request(chat_with(R"("stop":"la ")"))->stop ==
        std::vector<std::string>{"la "});
  CHECK(parse_chat_request(chat_with(R"("stop":["a","\n"])"))->stop ==
        std::vector<std::string>{"a", "\n"});
}

TEST_CASE("stop_token_ids are ids") {
  std::string many = "[0";
  for (int i = 0; i < 1024; ++i)
    many += ",1";
  check_values("stop_token_ids", {"[]", "[0]", "[2147483647,5]"},
               {"[-1]", "[2147483648]", "[9223372036854775808]", "[1.5]",
                "[true]", "[[1]]", "5", many + "]"});
  CHECK(params_of("\"stop_token_ids\":[28,2]").stop_token_ids ==
        std::vector<token_id>{28, 2});
}

TEST_CASE("min_tokens is at most max_tokens") {
  check_values("min_tokens", {"0", "16"}, {"-1", "2147483648", "0.5"});
  check_both("\"min_tokens\":20,\"max_tokens\":10", "min_tokens");
  check_both("\"min_tokens\":10,\"max_tokens\":10", "");
  CHECK(chat_refuses(chat_with("\"min_tokens\":17")) == "");
  CHECK(completion_refuses(completion_with("\"min_tokens\":17")) ==
        "min_tokens");
  CHECK(params_of("\"min_tokens\":8").min_tokens == 8);
}

TEST_CASE("flags come through") {
  auto chat = parse_chat_request(chat_with(
      R"("ignore_eos":true,"include_stop_str_in_output":true,"user":"u-1",)"
      R"("skip_special_tokens":false,"return_token_ids":true,"model":"m")"));
  REQUIRE(chat.has_value());
  CHECK(chat->params.ignore_eos);
  CHECK(chat->include_stop_in_output);
  CHECK_FALSE(chat->skip_special_tokens);
  CHECK(chat->return_token_ids);
  CHECK(chat->user == "u-1");
  CHECK(chat->model == "m");
  auto plain = parse_chat_request(chat_with(""));
  CHECK_FALSE(plain->params.ignore_eos);
  CHECK_FALSE(plain->include_stop_in_output);
  CHECK(plain->skip_special_tokens);
  CHECK_FALSE(plain->return_token_ids);
  CHECK_FALSE(plain->stream);
  CHECK(plain->model.empty());
}

TEST_CASE("the usage of a stream is asked for within stream_options") {
  check_both(R"("stream_options":{"include_usage":true})", "stream_options");
  check_both(R"("stream":true,"stream_options":{"include_usage":5})",
             "stream_options.include_usage");
  auto usage = parse_chat_request(
      chat_with(R"("stream":true,"stream_options":{"include_usage":true,)"
                R"("continuous_usage_stats":true})"));
  CHECK(usage->include_usage);
  CHECK(usage->continuous_usage);
  auto last = parse_chat_request(
      chat_with(R"("stream":true,"stream_options":{"include_usage":true})"));
  CHECK(last->include_usage);
  CHECK_FALSE(last->continuous_usage);
}

TEST_CASE("log-probabilities of a chat are a flag and a number") {
  auto top = [](const std::string& fields) {
    return parse_chat_request(chat_with(fields)).value().params.logprobs;
  };
  CHECK(top("") == -1);
  CHECK(top("\"logprobs\":false,\"top_logprobs\":0") == -1);
  CHECK(top("\"logprobs\":true") == 0);
  CHECK(top("\"logprobs\":true,\"top_logprobs\":20") == 20);
  CHECK(chat_refuses(chat_with("\"top_logprobs\":3")) == "top_logprobs");
  for (const char* wrong : {"-1", "21", "2147483648"})
    CHECK(chat_refuses(chat_with("\"logprobs\":true,\"top_logprobs\":" +
                                 std::string{wrong})) == "top_logprobs");
}

TEST_CASE("log-probabilities of a completion are a number") {
  auto params = [](const std::string& fields) {
    return parse_completion_request(completion_with(fields)).value().params;
  };
  CHECK(params("").logprobs == -1);
  CHECK(params("\"logprobs\":0").logprobs == 0);
  CHECK(params("\"logprobs\":20").logprobs == 20);
  CHECK(params("\"logprobs\":2").prompt_logprobs == -1);
  CHECK(params("\"logprobs\":2,\"echo\":true").prompt_logprobs == 2);
  CHECK(params("\"echo\":true").prompt_logprobs == -1);
  for (const char* wrong : {"-1", "21", "2147483648"})
    CHECK(completion_refuses(completion_with(
              "\"logprobs\":" + std::string{wrong})) == "logprobs");
}

TEST_CASE("what is not supported yet is refused by name") {
  for (const char* fields : {R"("functions":[{}])",
                             R"("audio":{})",
                             R"("suffix":" the end")",
                             R"("structured_outputs":{"regex":"a"})",
                             R"("guided_json":{})",
                             R"("guided_regex":"a")",
                             R"("guided_choice":["a"])",
                             R"("guided_grammar":"a")",
                             R"("prompt_logprobs":0)",
                             R"("allowed_token_ids":[-1])",
                             R"("bad_words":["a"])",
                             R"("use_beam_search":true)",
                             R"("truncate_prompt_tokens":5)",
                             R"("prompt_embeds":"AA==")",
                             R"("logits_processors":["a"])",
                             R"("priority":1001)",
                             R"("timeout":0)",
                             R"("modalities":["text","audio"])",
                             R"("web_search_options":{})",
                             R"("tools":[{"type":"function"}])",
                             R"("tool_choice":"auto")",
                             R"("tool_choice":"required")",
                             R"("tool_choice":{})",
                             R"("function_call":"auto")",
                             R"("cache_salt":"a")"}) {
    std::string text = fields;
    check_both(text, text.substr(1, text.find('"', 1) - 1));
  }
  check_both(R"("response_format":{"type":"json_object"})",
             "response_format.type");
  check_both(R"("response_format":{})", "response_format.type");
}

TEST_CASE("documents belong to a chat") {
  CHECK(chat_refuses(chat_with(R"("documents":[{}])")) == "");
  CHECK(completion_refuses(completion_with(R"("documents":[{}])")) ==
        "documents");
  check_both(R"("documents":[])", "");
}

TEST_CASE("what asks for nothing unsupported is taken") {
  for (const char* fields :
       {R"("functions":[])", R"("suffix":"")", R"("structured_outputs":{})",
        R"("chat_template_kwargs":{})", R"("bad_words":[])",
        R"("use_beam_search":false)", R"("priority":-7,"timeout":1.5)", R"("tools":[])",
        R"("modalities":["text"])", R"("response_format":{"type":"text"})",
        R"("tool_choice":"none")", R"("function_call":"none")",
        R"("tools":[{"type":"function"}],"tool_choice":"none")",
        R"("metadata":{"a":"b"},"store":false,"service_tier":"auto")",
        R"("parallel_tool_calls":true,"reasoning_effort":"low")"})
    check_both(fields, "");
}
