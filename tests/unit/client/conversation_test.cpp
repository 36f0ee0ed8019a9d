#include "client/conversation.hpp"

#include <catch2/catch.hpp>

#include <string>

using namespace troupe::client;

TEST_CASE("a conversation is asked with all its turns") {
  conversation talk{{"m", "be brief", 0, 5}};
  talk.keep("one", "two");
  CHECK(talk.request_for("\"three\"") ==
        R"({"model":"m","stream":true,"temperature":0.0,"max_tokens":5,)"
        R"("messages":[{"role":"system","content":"be brief"},)"
        R"({"role":"user","content":"one"},)"
        R"({"role":"assistant","content":"two"},)"
        R"({"role":"user","content":"\"three\""}]})");
  talk.clear();
  talk.settings().system.clear();
  talk.settings().temperature = -1;
  talk.settings().max_tokens = 0;
  CHECK(talk.request_for("x") ==
        R"({"model":"m","stream":true,)"
        R"("messages":[{"role":"user","content":"x"}]})");
}

TEST_CASE("an event's text is its first choice's delta") {
  std::string failure;
  CHECK(text_of_event(R"({"choices":[{"delta":{"content":"a"}}]})", failure) ==
        "a");
  CHECK(text_of_event(R"({"choices":[{"delta":{}}]})", failure) == "");
  CHECK(text_of_event(R"({"choices":[],"usage":{}})", failure) == "");
  CHECK(failure == "");
  text_of_event(R"({"error":{"message":"too late"}})", failure);
  CHECK(failure == "too late");
  text_of_event("{", failure);
  CHECK(failure == "an event of the answer cannot be read");
}
