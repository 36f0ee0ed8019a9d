#include "request_bodies.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::api;

namespace {

std::vector<prompt> prompts(const std::string& json) {
  return parse_completion_request("{\"prompt\":" + json + "}").value().prompts;
}

std::string refuses(const std::string& json) {
  return completion_refuses("{\"prompt\":" + json + "}");
}

using ids = std::vector<token_id>;

} // namespace

TEST_CASE("a prompt is a text, ids, or a list of either") {
  CHECK(prompts("\"once\"") == std::vector<prompt>{"once"});
  CHECK(prompts("[\"a\",\"b\"]") == std::vector<prompt>{"a", "b"});
  CHECK(prompts("[6403,0,2147483647]") ==
        std::vector<prompt>{ids{6403, 0, 2147483647}});
  CHECK(prompts("[[1,2],[3]]") == std::vector<prompt>{ids{1, 2}, ids{3}});
  CHECK(prompts("[[1],\"a\"]") == std::vector<prompt>{ids{1}, "a"});
}

TEST_CASE("an empty or wrong prompt is refused by its path") {
  CHECK(completion_refuses("{}") == "prompt");
  for (const char* wrong : {"null", "\"\"", "[]", "5", "true", "{}"})
    CHECK(refuses(wrong) == "prompt");
  for (const char* wrong :
       {"[\"\"]", "[[]]", "[null]", "[1.5]", "[true]", "[{}]", "[-1]",
        "[2147483648]", "[9223372036854775808]"})
    CHECK(refuses(wrong) == "prompt[0]");
  for (const char* wrong : {"[1,\"a\"]", "[\"a\",1]", "[1,[2]]", "[1,1.5]",
                            "[1,null]", "[[1],[]]", "[\"a\",null]", "[1,true]"})
    CHECK(refuses(wrong) == "prompt[1]");
  CHECK(refuses("[[1],[5,-1]]") == "prompt[1][1]");
  CHECK(refuses("[[[1]]]") == "prompt[0][0]");
}

TEST_CASE("prompts and choices are bounded") {
  auto many = [](std::size_t count) {
    std::string all = "[\"a\"";
    for (std::size_t i = 1; i < count; ++i)
      all += ",\"a\"";
    return all + "]";
  };
  CHECK(refuses(many(2048)) == "");
  CHECK(refuses(many(2049)) == "prompt");
  CHECK(refuses(many(16) + ",\"n\":128") == "");
  CHECK(refuses(many(17) + ",\"n\":128") == "n");
}

TEST_CASE("echo and special tokens are flags of a completion") {
  auto plain = parse_completion_request(completion_with(""));
  CHECK_FALSE(plain->echo);
  CHECK(plain->add_special_tokens);
  auto set = parse_completion_request(
      completion_with("\"echo\":true,\"add_special_tokens\":false"));
  CHECK(set->echo);
  CHECK_FALSE(set->add_special_tokens);
}
