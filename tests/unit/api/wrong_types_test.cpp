#include "request_bodies.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <vector>

using namespace troupe::api;

namespace {

enum class kind { text, flag, number, integer, list, object, strings };

struct field {
  const char* name;
  kind is;
  bool in_chat = true;
  bool in_completion = true;
};

/// Every field of the API description that is read, and the engine's own.
const std::vector<field> fields = {
    {"model", kind::text},
    {"max_tokens", kind::integer},
    {"max_completion_tokens", kind::integer, true, false},
    {"temperature", kind::number},
    {"top_p", kind::number},
    {"top_k", kind::integer},
    {"min_p", kind::number},
    {"n", kind::integer},
    {"best_of", kind::integer},
    {"seed", kind::integer},
    {"stop", kind::strings},
    {"stop_token_ids", kind::list},
    {"ignore_eos", kind::flag},
    {"min_tokens", kind::integer},
    {"frequency_penalty", kind::number},
    {"presence_penalty", kind::number},
    {"repetition_penalty", kind::number},
    {"logit_bias", kind::object},
    {"logprobs", kind::flag, true, false},
    {"logprobs", kind::integer, false, true},
    {"top_logprobs", kind::integer, true, false},
    {"echo", kind::flag},
    {"stream", kind::flag},
    {"stream_options", kind::object},
    {"return_token_ids", kind::flag},
    {"user", kind::text},
    {"include_stop_str_in_output", kind::flag},
    {"skip_special_tokens", kind::flag},
    {"add_generation_prompt", kind::flag, true, false},
    {"continue_final_message", kind::flag, true, false},
    {"add_special_tokens", kind::flag},
    {"response_format", kind::object},
    {"tools", kind::list},
    {"functions", kind::list},
    {"documents", kind::list, true, false},
    {"modalities", kind::list},
    {"suffix", kind::text},
    {"metadata", kind::object},
    {"store", kind::flag},
    {"service_tier", kind::text},
    {"parallel_tool_calls", kind::flag},
    {"reasoning_effort", kind::text},
    {"verbosity", kind::text},
    {"prediction", kind::object},
    {"prompt_cache_key", kind::text},
    {"safety_identifier", kind::text},
};

std::vector<std::string> wrong_values(kind wanted) {
  std::vector<std::string> all;
  auto add_unless = [&](std::initializer_list<kind> right, const char* value) {
    for (auto each : right)
      if (each == wanted)
        return;
    all.emplace_back(value);
  };
  add_unless({kind::text, kind::strings}, "\"nonsense\"");
  add_unless({kind::text, kind::strings}, "\"\\u0000\"");
  add_unless({kind::number, kind::integer}, "1");
  add_unless({kind::number}, "0.5");
  add_unless({}, "1e300");
  add_unless({kind::flag}, "true");
  add_unless({kind::list}, "[]");
  add_unless({}, "[null]");
  add_unless({}, "[[]]");
  add_unless({kind::object}, "{}");
  if (wanted == kind::strings)
    std::erase(all, "[]");
  return all;
}

std::string with(const char* name, const std::string& value) {
  return "\"" + std::string{name} + "\":" + value;
}

} // namespace

TEST_CASE("every field refuses every wrong type by its name") {
  for (const auto& field : fields)
    for (const auto& value : wrong_values(field.is)) {
      auto text = with(field.name, value);
      CAPTURE(text);
      if (field.in_chat)
        CHECK(chat_refuses(chat_with(text)).starts_with(field.name));
      if (field.in_completion)
        CHECK(
            completion_refuses(completion_with(text)).starts_with(field.name));
    }
}

TEST_CASE("null is as good as absent for every field") {
  for (const auto& field : fields) {
    CAPTURE(field.name);
    CHECK(chat_refuses(chat_with(with(field.name, "null"))) == "");
    CHECK(completion_refuses(completion_with(with(field.name, "null"))) == "");
  }
}

TEST_CASE("numbers as strings are coerced at the top level") {
  auto chat = parse_chat_request(chat_with(
      R"("max_tokens":"12","temperature":"0.5","seed":"-1","top_k":"7")"));
  REQUIRE(chat.has_value());
  CHECK(chat->params.max_tokens == 12);
  CHECK(chat->params.temperature == 0.5f);
  CHECK(chat->seed == ~std::uint64_t{0});
  CHECK(chat->params.top_k == 7);
}

TEST_CASE("a string that is not a whole number is refused") {
  for (const char* text : {"", " 12", "12 ", "+12", "12.5", "1e3", "0x10",
                           "nan", "inf", "9223372036854775808", "twelve"})
    CHECK(chat_refuses(chat_with("\"max_tokens\":\"" + std::string{text} +
                                 "\"")) == "max_tokens");
  for (const char* text : {"nan", "inf", "-inf", "1e999", "0x1", "1,5", ""})
    CHECK(chat_refuses(chat_with("\"temperature\":\"" + std::string{text} +
                                 "\"")) == "temperature");
}

TEST_CASE("booleans as strings are coerced at the top level") {
  for (const char* text : {"true", "yes", "on", "1", "t", "y", "TRUE", "Yes"})
    CHECK(parse_chat_request(
              chat_with("\"stream\":\"" + std::string{text} + "\""))
              ->stream);
  for (const char* text : {"false", "no", "off", "0", "f", "n", "OFF"}) {
    auto chat = parse_chat_request(
        chat_with("\"stream\":\"" + std::string{text} + "\""));
    REQUIRE(chat.has_value());
    CHECK_FALSE(chat->stream);
  }
}

TEST_CASE("nested numbers and booleans are never coerced") {
  CHECK(chat_refuses(chat_with(
            R"("stream":true,"stream_options":{"include_usage":"yes"})")) ==
        "stream_options.include_usage");
  CHECK(chat_refuses(chat_with(R"("logit_bias":{"5":"1"})")) == "logit_bias");
  CHECK(chat_refuses(chat_with(R"("stop_token_ids":["5"])")) ==
        "stop_token_ids");
  CHECK(completion_refuses(R"({"prompt":[5,"6"]})") == "prompt[1]");
}

TEST_CASE("a whole number may be written with a fraction of zero") {
  CHECK(
      parse_chat_request(chat_with("\"max_tokens\":12.0"))->params.max_tokens ==
      12);
  CHECK(parse_chat_request(chat_with("\"max_tokens\":1.2e1"))
            ->params.max_tokens == 12);
}

TEST_CASE("unknown and foreign engine fields change nothing") {
  auto plain = parse_chat_request(chat_with("\"seed\":1"));
  auto foreign = parse_chat_request(
      chat_with(R"("seed":1,"n_discard":5,"cache_prompt":true,"id_slot":-1,)"
                R"("kwargs":{"temperature":0},"n_predict":3,"frobnicate":true,)"
                R"("samplers":["x"],"":0,"slot_id":1e300,"mirostat":2)"));
  REQUIRE(plain.has_value());
  REQUIRE(foreign.has_value());
  CHECK(foreign->params == plain->params);
  CHECK(foreign->max_tokens_given == plain->max_tokens_given);
}
