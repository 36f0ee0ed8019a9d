#include "request_bodies.hpp"

#include "router/api/json_writer.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace troupe;
using namespace troupe::api;

namespace {

const text::value* field(const text::value& message, std::string_view key) {
  for (const auto& [name, value] : std::get<text::value::map>(message.data))
    if (name == key)
      return &value;
  return nullptr;
}

text::text_piece piece(const text::value& value) {
  const auto& pieces = std::get<text::text_pieces>(value.data);
  REQUIRE(pieces.size() == 1);
  return pieces.front();
}

const text::value::list& list(const text::value& value) {
  return std::get<text::value::list>(value.data);
}

std::string as_json(std::string_view text) {
  return json_writer{}.text(text).take();
}

std::string user_says(std::string_view text) {
  return messages(R"([{"role":"user","content":)" + as_json(text) + "}]");
}

text::text_piece content_of(const std::string& body) {
  auto chat = parse_chat_request(body);
  REQUIRE(chat.has_value());
  return piece(*field(list(chat->messages).front(), "content"));
}

} // namespace

TEST_CASE("messages keep their order, roles and contents") {
  auto chat = parse_chat_request(
      messages(R"([{"role":"system","content":"Be brief."},)"
               R"({"content":"hi","role":"user","name":"Ann"}])"));
  REQUIRE(chat.has_value());
  const auto& all = list(chat->messages);
  REQUIRE(all.size() == 2);
  CHECK(piece(*field(all[0], "role")) == text::text_piece{"system", false});
  CHECK(piece(*field(all[0], "content")) ==
        text::text_piece{"Be brief.", true});
  CHECK(piece(*field(all[1], "role")) == text::text_piece{"user", false});
  CHECK(piece(*field(all[1], "name")) == text::text_piece{"Ann", true});
}

TEST_CASE("whatever text is put in, content comes out unchanged") {
  for (const char* text : {"",
                           " ",
                           "<|im_start|>system",
                           "<|im_end|>",
                           "<|endoftext|>",
                           "{{ messages }}{% for %}",
                           "\"quoted\" \\ slash/",
                           "\t\r\n\b\f\x01\x7f",
                           "\xe2\x80\xa8\xe2\x80\xa9",
                           "\xef\xbb\xbf",
                           "\xf0\x9f\x91\xa9\xe2\x80"
                           "\x8d\xf0\x9f\x92\xbb",
                           "\xe0\xa4\xa8\xe0\xa4\xae\xe0\xa4\xb8\xe0\xa5"
                           "\x8d\xe0\xa4\xa4\xe0\xa5\x87",
                           "Z\xcc\xb5\xcc\x81",
                           "\xef\xbf\xbe",
                           "\xf4\x8f\xbf\xbf",
                           "\xe2\x80\xae"
                           "abc",
                           "null",
                           "NaN",
                           "../../etc",
                           "'; DROP TABLE x;--",
                           "<script>alert(1)</script>",
                           "%s%n%d"}) {
    CAPTURE(text);
    CHECK(content_of(user_says(text)) == text::text_piece{text, true});
  }
  std::string zero(3, '\0');
  CHECK(content_of(user_says(zero)) == text::text_piece{zero, true});
}

TEST_CASE("random Unicode survives as content") {
  std::mt19937 random{7};
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (int i = 0; i < 40; ++i) {
      std::uint32_t c = random() % 0x110000;
      if (c >= 0xd800 && c < 0xe000)
        continue;
      if (c < 0x80) {
        text += static_cast<char>(c);
      } else if (c < 0x800) {
        text += static_cast<char>(0xc0 | c >> 6);
        text += static_cast<char>(0x80 | (c & 63));
      } else if (c < 0x10000) {
        text += static_cast<char>(0xe0 | c >> 12);
        text += static_cast<char>(0x80 | (c >> 6 & 63));
        text += static_cast<char>(0x80 | (c & 63));
      } else {
        text += static_cast<char>(0xf0 | c >> 18);
        text += static_cast<char>(0x80 | (c >> 12 & 63));
        text += static_cast<char>(0x80 | (c >> 6 & 63));
        text += static_cast<char>(0x80 | (c & 63));
      }
    }
    CHECK(content_of(user_says(text)) == text::text_piece{text, true});
  }
}

TEST_CASE("a role that OpenAI does not know is content") {
  auto chat =
      parse_chat_request(messages(R"([{"role":"wizard","content":"hi"}])"));
  REQUIRE(chat.has_value());
  CHECK(piece(*field(list(chat->messages)[0], "role")) ==
        text::text_piece{"wizard", true});
  chat =
      parse_chat_request(messages(R"([{"role":"<|im_end|>","content":"hi"}])"));
  REQUIRE(chat.has_value());
  CHECK(piece(*field(list(chat->messages)[0], "role")).content);
}

TEST_CASE("a single text part is its text, several are a list") {
  auto one = messages(R"([{"role":"user","content":)"
                      R"([{"type":"text","text":"hi"}]}])");
  CHECK(content_of(one) == text::text_piece{"hi", true});
  auto chat = parse_chat_request(
      messages(R"([{"role":"user","content":[{"type":"text","text":"a"},)"
               R"({"type":"text","text":"b"}]}])"));
  REQUIRE(chat.has_value());
  const auto& parts = list(*field(list(chat->messages)[0], "content"));
  REQUIRE(parts.size() == 2);
  CHECK(piece(*field(parts[1], "type")).text == "text");
  CHECK(piece(*field(parts[1], "text")) == text::text_piece{"b", true});
  join_text_parts(chat->messages);
  CHECK(piece(*field(list(chat->messages)[0], "content")) ==
        text::text_piece{"a\nb", true});
}

TEST_CASE("wrong messages are refused by their path") {
  auto refuses = [](const char* list) { return chat_refuses(messages(list)); };
  CHECK(chat_refuses("{}") == "messages");
  CHECK(refuses("null") == "messages");
  CHECK(refuses("[]") == "messages");
  CHECK(refuses("\"hello\"") == "messages");
  CHECK(refuses("{}") == "messages");
  CHECK(refuses("[5]") == "messages[0]");
  CHECK(refuses(R"([{"role":"user","content":"a"},null])") == "messages[1]");
  CHECK(refuses(R"([{"content":"hi"}])") == "messages[0].role");
  CHECK(refuses(R"([{"role":null,"content":"hi"}])") == "messages[0].role");
  CHECK(refuses(R"([{"role":5,"content":"hi"}])") == "messages[0].role");
  CHECK(refuses(R"([{"role":"","content":"hi"}])") == "messages[0].role");
  CHECK(refuses(R"([{"role":"\u0000","content":"hi"}])") == "messages[0].role");
  CHECK(refuses(R"([{"role":"user"}])") == "messages[0].content");
  CHECK(refuses(R"([{"role":"user","content":null}])") ==
        "messages[0].content");
  CHECK(refuses(R"([{"role":"user","content":5}])") == "messages[0].content");
  CHECK(refuses(R"([{"role":"user","content":{}}])") == "messages[0].content");
  CHECK(refuses(R"([{"role":"user","content":[]}])") == "messages[0].content");
  CHECK(refuses(R"([{"role":"user","content":["a"]}])") ==
        "messages[0].content[0]");
  CHECK(refuses(R"([{"role":"user","content":[{"type":"text"}]}])") ==
        "messages[0].content[0].text");
  CHECK(refuses(R"([{"role":"user","content":[{"text":"a"}]}])") ==
        "messages[0].content[0].type");
  CHECK(refuses(R"([{"role":"user","content":"a","name":5}])") ==
        "messages[0].name");
  CHECK(refuses(R"([{"role":"assistant","content":null,)"
                R"("tool_calls":[{"id":"1"}]}])") == "messages[0].tool_calls");
}

TEST_CASE("images and other parts are refused as not supported") {
  for (const char* type :
       {"image_url", "input_audio", "file", "refusal", "x"}) {
    auto parsed = parse_chat_request(
        messages(R"([{"role":"user","content":[{"type":"text","text":"a"},)"
                 R"({"type":")" +
                 std::string{type} + R"(","image_url":{"url":"x"}}]}])"));
    CHECK(refused(parsed) == "messages[0].content[1].type");
    CHECK(parsed.error().message.find("not supported") != std::string::npos);
  }
}

TEST_CASE("messages and parts are bounded") {
  auto many = [](std::size_t count, const std::string& item) {
    std::string all = "[" + item;
    for (std::size_t i = 1; i < count; ++i)
      all += "," + item;
    return all + "]";
  };
  std::string message = R"({"role":"user","content":""})";
  CHECK(chat_refuses(messages(many(4096, message))) == "");
  CHECK(chat_refuses(messages(many(4097, message))) == "messages");
  CHECK(chat_refuses(messages(many(1'000'000, "0"))) == "messages");
  std::string part = R"({"type":"text","text":"a"})";
  auto with_parts = [&](std::size_t count) {
    return chat_refuses(
        messages(R"([{"role":"user","content":)" + many(count, part) + "}]"));
  };
  CHECK(with_parts(1024) == "");
  CHECK(with_parts(1025) == "messages[0].content");
}

TEST_CASE("a conversation of the system alone is refused") {
  CHECK(chat_refuses(messages(R"([{"role":"system","content":"a"}])")) ==
        "messages");
}

TEST_CASE("the end of the prompt is opened or continued, not both") {
  auto plain = parse_chat_request(chat_with(""));
  CHECK(plain->add_generation_prompt);
  CHECK_FALSE(plain->continue_final_message);
  auto more = parse_chat_request(chat_with("\"continue_final_message\":true"));
  CHECK_FALSE(more->add_generation_prompt);
  CHECK(more->continue_final_message);
  auto bare = parse_chat_request(chat_with("\"add_generation_prompt\":false"));
  CHECK_FALSE(bare->add_generation_prompt);
  CHECK(chat_refuses(chat_with(R"("continue_final_message":true,)"
                               R"("add_generation_prompt":true)")) ==
        "continue_final_message");
}

TEST_CASE("echo in a chat is taken where there is nothing to repeat") {
  CHECK(chat_refuses(chat_with("\"echo\":true")) == "");
  CHECK(chat_refuses(R"({"messages":[{"role":"assistant","content":"a"}],)"
                     R"("echo":true})") == "echo");
  CHECK(chat_refuses(chat_with("\"add_special_tokens\":true")) ==
        "add_special_tokens");
}

TEST_CASE("arguments of the template are content of any shape") {
  auto chat = parse_chat_request(messages(
      R"([{"role":"user","content":"hi"}],"chat_template_kwargs":)"
      R"({"enable_thinking":false,"documents":[{"text":"<|im_end|>"}],)"
      R"("n":3,"x":1.5,"none":null})"));
  REQUIRE(chat.has_value());
  text::value all{chat->template_kwargs};
  CHECK(std::get<bool>(field(all, "enable_thinking")->data) == false);
  CHECK(std::get<std::int64_t>(field(all, "n")->data) == 3);
  CHECK(std::get<double>(field(all, "x")->data) == 1.5);
  CHECK(field(all, "none")->data.index() == 0);
  const auto& document = list(*field(all, "documents")).front();
  CHECK(piece(*field(document, "text")) ==
        text::text_piece{"<|im_end|>", true});
}

TEST_CASE("documents are a list of objects, and content") {
  auto chat = parse_chat_request(
      chat_with(R"("documents":[{"title":"T","text":"<|im_end|>"},{}])"));
  REQUIRE(chat.has_value());
  REQUIRE(chat->documents);
  REQUIRE(list(*chat->documents).size() == 2);
  CHECK(piece(*field(list(*chat->documents)[0], "text")) ==
        text::text_piece{"<|im_end|>", true});
  CHECK_FALSE(parse_chat_request(chat_with(R"("documents":null)"))->documents);
  CHECK(list(*parse_chat_request(chat_with(R"("documents":[])"))->documents)
            .empty());
  CHECK(chat_refuses(chat_with(R"("documents":["a"])")) == "documents[0]");
  CHECK(chat_refuses(chat_with(R"("documents":{})")) == "documents");
  CHECK(chat_refuses(chat_with(R"("documents":[{}],)"
                               R"("chat_template_kwargs":{"documents":[]})")) ==
        "documents");
}

TEST_CASE("tools that are not to be called are for the template alone") {
  auto chat = parse_chat_request(chat_with(
      R"("tools":[{"type":"function","function":{"name":"<|im_end|>"}}],)"
      R"("tool_choice":"none")"));
  REQUIRE(chat.has_value());
  REQUIRE(chat->tools);
  const auto& function = *field(list(*chat->tools)[0], "function");
  CHECK(piece(*field(function, "name")) ==
        text::text_piece{"<|im_end|>", true});
  CHECK(chat_refuses(chat_with(R"("tools":[1],"tool_choice":"none")")) ==
        "tools[0]");
  CHECK(chat_refuses(chat_with(R"("tools":[{}],"tool_choice":"auto")")) ==
        "tools");
}

/// Of a value for the template: its bytes, its elements, its depth.
template <class Refused>
static void check_value_bounds(Refused refused) {
  CHECK(refused('"' + std::string((1u << 20) + 1, 'x') + '"'));
  std::string many = "[0";
  for (int i = 0; i < 10'000; ++i)
    many += ",0";
  CHECK(refused(many + "]"));
  CHECK(refused(std::string(40, '[') + std::string(40, ']')));
  CHECK_FALSE(refused(std::string(20, '[') + std::string(20, ']')));
}

TEST_CASE("documents are bounded") {
  auto refused = [](const std::string& value) {
    return chat_refuses(chat_with(R"("documents":[{"a":)" + value + "}]")) ==
           "documents";
  };
  check_value_bounds(refused);
}

TEST_CASE("arguments of the template cannot be what the request says") {
  for (const char* name :
       {"messages", "tools", "tokenize", "chat_template", "bos_token",
        "add_generation_prompt", "raise_exception", "strftime_now"}) {
    CAPTURE(name);
    auto chat = parse_chat_request(messages(
        R"([{"role":"user","content":"hi"}],"chat_template_kwargs":{")" +
        std::string{name} + R"(":true})"));
    REQUIRE(!chat);
    CHECK(chat.error().param == "chat_template_kwargs");
    CHECK(chat.error().message.find(name) != std::string::npos);
  }
}

TEST_CASE("arguments of the template are bounded") {
  auto refused = [](const std::string& value) {
    auto chat = parse_chat_request(messages(
        R"([{"role":"user","content":"hi"}],"chat_template_kwargs":{"a":)" +
        value + "}"));
    return !chat && chat.error().param == "chat_template_kwargs";
  };
  check_value_bounds(refused);
}

TEST_CASE("a template in a request is bounded") {
  auto with = [](std::size_t bytes) {
    return parse_chat_request(
        messages(R"([{"role":"user","content":"hi"}],"chat_template":")" +
                 std::string(bytes, 'x') + '"'));
  };
  CHECK(with(64u << 10)->chat_template.size() == 64u << 10);
  CHECK(with((64u << 10) + 1).error().param == "chat_template");
}
