#include "request_bodies.hpp"

#include "router/api/fit_to_model.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::api;

namespace {

constexpr std::uint32_t context = 100;
constexpr std::uint32_t vocabulary = 49152;

std::string refused(const std::optional<api_error>& error) {
  return error ? error->param : "";
}

chat_request chat(const std::string& fields) {
  return parse_chat_request(chat_with(fields)).value();
}

std::string chat_misfit(const std::string& fields, std::size_t prompt_tokens) {
  auto request = chat(fields);
  return refused(
      fit_to_model(request, true, prompt_tokens, context, vocabulary));
}

std::string completion_misfit(const std::string& fields,
                              std::size_t prompt_tokens) {
  auto request = parse_completion_request(completion_with(fields)).value();
  return refused(
      fit_to_model(request, false, prompt_tokens, context, vocabulary));
}

} // namespace

TEST_CASE("a chat without max_tokens gets the room its prompt leaves") {
  auto request = chat("");
  CHECK_FALSE(fit_to_model(request, true, 37, context, vocabulary));
  CHECK(request.params.max_tokens == 63);
}

TEST_CASE("prompt and answer may fill the context exactly") {
  CHECK(chat_misfit("\"max_tokens\":63", 37) == "");
  CHECK(chat_misfit("\"max_tokens\":64", 37) == "max_tokens");
  CHECK(chat_misfit("\"max_completion_tokens\":64", 37) ==
        "max_completion_tokens");
  CHECK(chat_misfit("\"max_tokens\":2147483647", 37) == "max_tokens");
  CHECK(completion_misfit("", 84) == "");
  CHECK(completion_misfit("", 85) == "max_tokens");
}

TEST_CASE("a prompt that leaves no room for a token is refused") {
  CHECK(chat_misfit("", 99) == "");
  CHECK(chat_misfit("", 100) == "messages");
  CHECK(chat_misfit("", std::size_t{1} << 33) == "messages");
  CHECK(completion_misfit("", 100) == "prompt");
  CHECK(completion_misfit("\"echo\":true,\"max_tokens\":0", 100) == "");
  CHECK(completion_misfit("\"echo\":true,\"max_tokens\":0", 101) == "prompt");
}

TEST_CASE("a length error says what OpenAI says") {
  auto request = chat("");
  auto error = fit_to_model(request, true, 100, context, vocabulary);
  REQUIRE(error.has_value());
  CHECK(error->status == 400);
  CHECK(error->code == "context_length_exceeded");
}

TEST_CASE("min_tokens is held against the room too") {
  CHECK(chat_misfit("\"min_tokens\":63", 37) == "");
  CHECK(chat_misfit("\"min_tokens\":64", 37) == "min_tokens");
}

TEST_CASE("no id out of the vocabulary passes") {
  CHECK(chat_misfit(R"("logit_bias":{"49151":1})", 1) == "");
  CHECK(chat_misfit(R"("logit_bias":{"49152":1})", 1) == "logit_bias");
  CHECK(chat_misfit(R"("logit_bias":{"191222":-100})", 1) == "logit_bias");
  CHECK(chat_misfit("\"stop_token_ids\":[49151]", 1) == "");
  CHECK(chat_misfit("\"stop_token_ids\":[5,49152]", 1) == "stop_token_ids");
  CHECK(refused(check_prompt_ids({0, 49151}, vocabulary, "prompt")) == "");
  for (token_id id : {-1, 49152, 999999, 2147483647})
    CHECK(refused(check_prompt_ids({0, id}, vocabulary, "prompt[2]")) ==
          "prompt[2]");
}
