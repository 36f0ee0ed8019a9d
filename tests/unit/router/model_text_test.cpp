#include "router/model_text.hpp"
#include "tests/unit/router/byte_model.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::router;
using namespace troupe::test;

namespace {

std::shared_ptr<const model_text> model(text::model_card card) {
  auto bytes = text::encode(card);
  return *model_text::make(std::string{bytes.begin(), bytes.end()});
}

api::chat_request chat(std::string_view messages, std::string_view more = {}) {
  return *api::parse_chat_request(R"({"messages":)" + std::string{messages} +
                                  std::string{more} + "}");
}

/// The prompt as text, special tokens by their names.
std::string shown(const model_text& model, const std::vector<token_id>& ids) {
  std::string out;
  for (auto id : ids)
    out += model.tokenizer->bytes_of(id);
  return out;
}

} // namespace

TEST_CASE("a card that is cut short or has a broken template is an error") {
  auto bytes = text::encode(byte_model_card());
  std::string whole{bytes.begin(), bytes.end()};
  CHECK(!model_text::make(whole.substr(0, whole.size() - 3)));
  auto card = byte_model_card();
  card.chat_template = "{% nonsense %}";
  bytes = text::encode(card);
  CHECK(!model_text::make(std::string{bytes.begin(), bytes.end()}));
}

TEST_CASE("a chat is rendered with its roles and the generation prompt") {
  auto some = model(byte_model_card());
  auto request = chat(R"([{"role":"system","content":"S"},)"
                      R"({"role":"user","content":"U"}])");
  auto ids = chat_prompt(*some, request);
  REQUIRE(ids.has_value());
  CHECK(shown(*some, *ids) ==
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
        "<|im_start|>assistant\n");
}

TEST_CASE("text parts are joined for a template that knows strings only") {
  auto some = model(byte_model_card());
  CHECK(!some->takes_parts);
  auto request = chat(R"([{"role":"user","content":[)"
                      R"({"type":"text","text":"a"},)"
                      R"({"type":"text","text":"b"}]}])");
  auto ids = chat_prompt(*some, request);
  REQUIRE(ids.has_value());
  CHECK(shown(*some, *ids).find("a\nb<|im_end|>") != std::string::npos);
}

TEST_CASE("text parts reach a template that loops over them") {
  auto card = byte_model_card();
  card.chat_template = "{% for m in messages %}{% for part in m['content'] %}"
                       "[{{ part['text'] }}]{% endfor %}{% endfor %}";
  auto some = model(card);
  CHECK(some->takes_parts);
  auto request = chat(R"([{"role":"user","content":[)"
                      R"({"type":"text","text":"a"},)"
                      R"({"type":"text","text":"b"}]}])");
  CHECK(shown(*some, *chat_prompt(*some, request)) == "[a][b]");
}

TEST_CASE("loops over content are told from other uses of the word") {
  CHECK(loops_over_content("{%- for c in message.content -%}"));
  CHECK(loops_over_content("{% for c in messages[0]['content'] %}"));
  CHECK(!loops_over_content("{{ message['content'] }}"));
  CHECK(!loops_over_content("{% if 'x' in message.content %}"));
  CHECK(!loops_over_content("{% for m in messages %}{{ m.content }}"));
  CHECK(!loops_over_content("content"));
  CHECK(!loops_over_content(std::string(1 << 20, 'c')));
}

TEST_CASE("the last message is continued at its end, whatever it looks like") {
  auto some = model(byte_model_card());
  auto request = chat(R"([{"role":"user","content":"It is"},)"
                      R"({"role":"assistant","content":"It is"}])",
                      R"(,"continue_final_message":true)");
  auto ids = chat_prompt(*some, request);
  REQUIRE(ids.has_value());
  CHECK(shown(*some, *ids) ==
        "<|im_start|>user\nIt is<|im_end|>\n<|im_start|>assistant\nIt is");
}

TEST_CASE("a message that the template hides cannot be continued") {
  auto card = byte_model_card();
  card.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}";
  auto request = chat(R"([{"role":"assistant","content":"a"}])",
                      R"(,"continue_final_message":true)");
  auto ids = chat_prompt(*model(card), request);
  REQUIRE(!ids);
  CHECK(ids.error().status == 400);
  CHECK(ids.error().param == "continue_final_message");
}

TEST_CASE("what a template refuses is a 400 with its words") {
  auto card = byte_model_card();
  card.chat_template = "{{ raise_exception('Roles must alternate.') }}";
  auto request = chat(R"([{"role":"user","content":"a"}])");
  auto ids = chat_prompt(*model(card), request);
  REQUIRE(!ids);
  CHECK(ids.error().status == 400);
  CHECK(ids.error().message.find("Roles must alternate.") != std::string::npos);
}

TEST_CASE("a model without a template has no chat") {
  auto card = byte_model_card();
  card.chat_template.clear();
  auto request = chat(R"([{"role":"user","content":"a"}])");
  CHECK(chat_prompt(*model(card), request).error().status == 400);
}

TEST_CASE("a request's template is taken where the operator trusts it") {
  auto card = byte_model_card();
  auto request = [] {
    return chat(R"([{"role":"user","content":"U"}])",
                R"(,"chat_template":"<{{ messages[0].content }}>")");
  };
  auto one = request();
  auto refused = chat_prompt(*model(card), one);
  REQUIRE(!refused);
  CHECK(refused.error().status == 400);
  CHECK(refused.error().param == "chat_template");
  card.trust_request_template = true;
  auto two = request();
  auto some = model(card);
  CHECK(shown(*some, *chat_prompt(*some, two)) == "<U>");
  card.chat_template.clear();
  auto three = request();
  some = model(card);
  CHECK(shown(*some, *chat_prompt(*some, three)) == "<U>");
}

TEST_CASE("a request's template that is broken or endless is a 400") {
  auto card = byte_model_card();
  card.trust_request_template = true;
  auto some = model(card);
  for (const char* source :
       {"{% include 'x' %}", "{{ ''.__class__ }}", "{{ lipsum() }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}", "{{ 'a' * 10 ** 9 }}",
        "{{ ((((((((1 }}"}) {
    CAPTURE(source);
    auto request = chat(R"([{"role":"user","content":"U"}])",
                        R"(,"chat_template":")" + std::string{source} + '"');
    auto ids = chat_prompt(*some, request);
    REQUIRE(!ids);
    CHECK(ids.error().status == 400);
  }
}

TEST_CASE("arguments reach the template, a request's before the operator's") {
  auto card = byte_model_card();
  card.chat_template = "{{ a }}{{ b }}{% for d in documents or [] %}"
                       "[{{ d.text }}]{% endfor %}";
  card.template_kwargs = R"({"a": "<|im_start|>", "b": "own"})";
  auto some = model(card);
  auto plain = chat(R"([{"role":"user","content":"U"}])");
  auto ids = chat_prompt(*some, plain);
  REQUIRE(ids.has_value());
  CHECK(shown(*some, *ids) == "<|im_start|>own");
  CHECK(ids->front() == im_start);
  auto given = chat(R"([{"role":"user","content":"U"}])",
                    R"(,"chat_template_kwargs":{"a":"<|im_start|>",)"
                    R"("documents":[{"text":"D"}]})");
  ids = chat_prompt(*some, given);
  REQUIRE(ids.has_value());
  CHECK(shown(*some, *ids) == "<|im_start|>own[D]");
  CHECK(ids->front() != im_start); // a request's text is no special token
  auto field = chat(R"([{"role":"user","content":"U"}])",
                    R"(,"documents":[{"text":"<|im_start|>"}])");
  ids = chat_prompt(*some, field);
  REQUIRE(ids.has_value());
  CHECK(shown(*some, *ids) == "<|im_start|>own[<|im_start|>]");
  CHECK(std::count(ids->begin(), ids->end(), im_start) == 1);
}

TEST_CASE("templates know the date, and that there are no tools") {
  auto card = byte_model_card();
  card.chat_template =
      "{{ tools is none }} {{ documents is none }} "
      "{% if strftime_now is defined %}{{ strftime_now('%Y') | int > 2020 }}"
      "{% endif %}";
  auto some = model(card);
  auto request = chat(R"([{"role":"user","content":"U"}])");
  auto ids = chat_prompt(*some, request);
  REQUIRE(ids.has_value());
  CHECK(shown(*some, *ids) == "True True True");
}

TEST_CASE("an operator's arguments that make no sense refuse the card") {
  for (const char* wrong :
       {"[]", "{", R"({"messages": []})", R"({"tokenize": true})"}) {
    auto card = byte_model_card();
    card.template_kwargs = wrong;
    auto bytes = text::encode(card);
    CHECK(!model_text::make(std::string{bytes.begin(), bytes.end()}));
  }
}

TEST_CASE("raw prompts get what the tokenizer puts around a text") {
  auto card = byte_model_card();
  card.tokenizer.frame_one = {{im_start}, {-1}, {im_end}};
  auto some = model(card);
  CHECK(*raw_prompt(*some, std::string{"a"}, true, "prompt") ==
        std::vector<token_id>{im_start, 'a', im_end});
  CHECK(*raw_prompt(*some, std::string{"a"}, false, "prompt") ==
        std::vector<token_id>{'a'});
}

TEST_CASE("raw prompts may name special tokens and begin with bos if the card "
          "says so") {
  auto card = byte_model_card();
  auto some = model(card);
  CHECK(*raw_prompt(*some, std::string{"a<|im_end|>"}, true, "prompt") ==
        std::vector<token_id>{'a', im_end});
  card.tokenizer.add_bos = true;
  some = model(card);
  CHECK(*raw_prompt(*some, std::string{"a"}, true, "prompt") ==
        std::vector<token_id>{im_start, 'a'});
  CHECK(*raw_prompt(*some, std::string{"a"}, false, "prompt") ==
        std::vector<token_id>{'a'});
  CHECK(*raw_prompt(*some, std::vector<token_id>{5}, true, "prompt") ==
        std::vector<token_id>{5});
  CHECK(!raw_prompt(*some, std::vector<token_id>{258}, true, "prompt"));
  CHECK(!raw_prompt(*some, std::string{}, false, "prompt"));
}
