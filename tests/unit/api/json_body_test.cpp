#include "request_bodies.hpp"

#include <catch2/catch.hpp>

using namespace troupe::api;

namespace {

std::string repeated(const std::string& text, std::size_t times) {
  std::string all;
  for (std::size_t i = 0; i < times; ++i)
    all += text;
  return all;
}

} // namespace

TEST_CASE("a body that is not a JSON object is refused as a whole") {
  for (const char* body :
       {"", " ", "[]", "5", "null", "\"text\"", "{", "}", "{\"messages\":[",
        "{} {}", "{}x", "{'a':1}", "{\"a\" 1}", "{\"a\":1,}", "{,}", "{1:2}",
        "// comment\n{}"}) {
    CAPTURE(body);
    CHECK(chat_refuses(body) == "(body)");
    CHECK(completion_refuses(body) == "(body)");
  }
}

TEST_CASE("a body with anything behind its end is refused") {
  CHECK(chat_refuses(chat_with("")) == "");
  CHECK(chat_refuses(chat_with("") + " \r\n\t") == "");
  CHECK(chat_refuses(chat_with("") + ",") == "(body)");
  CHECK(chat_refuses(chat_with("") + std::string(1, '\0')) == "(body)");
}

TEST_CASE("a body nested too deep is refused, however deep") {
  CHECK(chat_refuses(std::string(100'000, '[')) == "(body)");
  CHECK(chat_refuses(repeated("[{\"\":", 50'000)) == "(body)");
  for (std::size_t depth : {65u, 100u, 100'000u}) {
    auto nested = std::string(depth, '[') + std::string(depth, ']');
    CHECK(chat_refuses(chat_with("\"x\":" + nested)) == "(body)");
  }
  auto nested = std::string(40, '[') + std::string(40, ']');
  CHECK(chat_refuses(chat_with("\"x\":" + nested)) == "");
}

TEST_CASE("a byte order mark is refused") {
  CHECK(chat_refuses("\xef\xbb\xbf" + chat_with("")) == "(body)");
}

TEST_CASE("bytes that are not UTF-8 are refused wherever they stand") {
  for (const char* bytes :
       {"\xff", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80",
        "\xf0\x80\x80\x80", "\xc3", "\x80", "\xf4\x90\x80\x80"}) {
    std::string text = bytes;
    CHECK(chat_refuses(chat_with("\"user\":\"" + text + "\"")) == "(body)");
    CHECK(chat_refuses(chat_with("\"" + text + "\":1")) == "(body)");
  }
}

TEST_CASE("a raw control character in a string is refused") {
  for (char c = 0; c < 0x20; ++c)
    CHECK(chat_refuses(chat_with("\"user\":\"a" + std::string(1, c) + "\"")) ==
          "(body)");
}

TEST_CASE("a lone surrogate is refused, a pair is taken") {
  for (const char* text : {"\\ud800", "\\udc00", "\\ud800x", "\\ud800\\u0041",
                           "\\udbff", "\\udfff", "\\udc00\\ud800"})
    CHECK(chat_refuses(chat_with("\"user\":\"" + std::string{text} + "\"")) ==
          "(body)");
  auto pair = parse_chat_request(chat_with(R"("user":"\ud83d\ude00")"));
  REQUIRE(pair.has_value());
  CHECK(pair->user == "\xf0\x9f\x98\x80");
}

TEST_CASE("a malformed or endless number names its field") {
  for (const std::string number :
       {"NaN", "Infinity", "-Infinity", "1e999", "-1e999", "01", "+1", ".5",
        "1.", "0x10", "18446744073709551616", "-9223372036854775809"}) {
    CAPTURE(number);
    CHECK(chat_refuses(chat_with("\"temperature\":" + number)) ==
          "temperature");
  }
  CHECK(chat_refuses(chat_with("\"seed\":" + std::string(1'000'000, '1'))) ==
        "seed");
}

TEST_CASE("a doubled key is refused by name at every level") {
  CHECK(chat_refuses(R"({"model":"a","model":"b","messages":[]})") == "model");
  CHECK(chat_refuses(R"({"model":"a","mod\u0065l":"b"})") == "model");
  CHECK(chat_refuses(messages(R"([{"role":"user","role":"user",)"
                              R"("content":"a"}])")) == "messages[0].role");
  CHECK(
      chat_refuses(messages(R"([{"role":"user","content":)"
                            R"([{"type":"text","text":"a","text":"b"}]}])")) ==
      "messages[0].content[0].text");
  CHECK(chat_refuses(chat_with(R"("logit_bias":{"5":1,"5":2})")) ==
        "logit_bias.5");
  CHECK(chat_refuses(chat_with(R"("frobnicate":[1,{"a":{"b":0,"b":0}}])")) ==
        "frobnicate[1].a.b");
  auto error = parse_chat_request(R"({"a":1,"a":1})").error();
  CHECK(error.status == 400);
  CHECK(error.message.find("\"a\"") != std::string::npos);
}

TEST_CASE("an object with too many fields is refused") {
  std::string fields = "\"x\":0";
  for (int i = 0; i < 5000; ++i)
    fields += ",\"k" + std::to_string(i) + "\":0";
  CHECK(chat_refuses(chat_with(fields)) == "(body)");
  CHECK(chat_refuses(chat_with("\"metadata\":{" + fields + "}")) == "metadata");
}

TEST_CASE("a body cut anywhere is refused and harms nothing") {
  auto body = chat_with(R"("stop":["a\n","\u00e9"],"logit_bias":{"5":-1.5e1},)"
                        R"("stream":true,"stream_options":{})");
  REQUIRE(chat_refuses(body) == "");
  for (std::size_t bytes = 0; bytes < body.size(); ++bytes)
    CHECK(chat_refuses(body.substr(0, bytes)) != "");
}

TEST_CASE("a body with any byte changed is taken or refused, never worse") {
  auto body = chat_with(R"("stop":["a\n","\u00e9"],"logit_bias":{"5":-1.5e1})");
  for (std::size_t i = 0; i < body.size(); ++i)
    for (int byte = 0; byte < 256; ++byte) {
      auto changed = body;
      changed[i] = static_cast<char>(byte);
      auto parsed = parse_chat_request(changed);
      if (!parsed && parsed.error().status != 400)
        FAIL("status " << parsed.error().status << " for " << changed);
    }
}

TEST_CASE("an error has OpenAI's form and tells nothing internal") {
  auto error = parse_chat_request(chat_with("\"temperature\":5")).error();
  CHECK(
      error_body(error) ==
      R"({"error":{"message":"temperature must be a number between 0 and 2.",)"
      R"("type":"invalid_request_error","param":"temperature","code":null}})");
  auto whole = parse_chat_request("{").error();
  CHECK(error_body(whole) ==
        R"({"error":{"message":"The request body is not valid JSON: its )"
        R"(structure is broken.","type":"invalid_request_error",)"
        R"("param":null,"code":null}})");
  CHECK(error_frame(whole) == "data: " + error_body(whole) + "\n\n");
}
