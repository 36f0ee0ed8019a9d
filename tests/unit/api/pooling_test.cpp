#include "request_bodies.hpp"
#include "router/api/pooling.hpp"

#include <catch2/catch.hpp>
#include <simdjson.h>

using namespace troupe;
using namespace troupe::api;

namespace {

std::string embedding_refuses(const std::string& fields) {
  return refused(parse_embedding_request("{" + fields + "}"));
}

std::string score_refuses(const std::string& fields) {
  return refused(parse_score_request("{" + fields + "}"));
}

std::string rerank_refuses(const std::string& fields) {
  return refused(parse_rerank_request("{" + fields + "}"));
}

embedding_request embedding(const std::string& fields) {
  return parse_embedding_request("{" + fields + "}").value();
}

} // namespace

TEST_CASE("an input is a text, ids, or a list of either") {
  CHECK(embedding(R"("input":"a")").inputs ==
        std::vector<prompt>{std::string{"a"}});
  CHECK(embedding(R"("input":["a","b"])").inputs ==
        std::vector<prompt>{std::string{"a"}, std::string{"b"}});
  CHECK(embedding(R"("input":[1,2])").inputs ==
        std::vector<prompt>{std::vector<token_id>{1, 2}});
  CHECK(embedding(R"("input":[[1],[2,3]])").inputs ==
        std::vector<prompt>{std::vector<token_id>{1},
                            std::vector<token_id>{2, 3}});
  CHECK(embedding_refuses("") == "input");
  CHECK(embedding_refuses(R"("input":"")") == "input");
  CHECK(embedding_refuses(R"("input":[])") == "input");
  CHECK(embedding_refuses(R"("input":{})") == "input");
  CHECK(embedding_refuses(R"("input":["a",""])") == "input[1]");
  CHECK(embedding_refuses(R"("input":["a",1])") == "input[1]");
  CHECK(embedding_refuses(R"("input":[[1,-1]])") == "input[0][1]");
  std::string many = "\"a\"";
  for (int i = 0; i < 2048; ++i)
    many += ",\"a\"";
  CHECK(embedding_refuses(R"("input":[)" + many + "]") == "input");
}

TEST_CASE("an embedding may be base64, shorter, and of the text's front") {
  auto plain = embedding(R"("input":"a")");
  CHECK_FALSE(plain.base64);
  CHECK(plain.dimensions == 0);
  CHECK(plain.add_special_tokens);
  CHECK_FALSE(plain.truncate_prompt_tokens.has_value());
  auto full = embedding(R"("input":"a","encoding_format":"base64",)"
                        R"("dimensions":8,"truncate_prompt_tokens":-1,)"
                        R"("add_special_tokens":false,"model":"m","user":"u")");
  CHECK(full.base64);
  CHECK(full.dimensions == 8);
  CHECK_FALSE(full.add_special_tokens);
  CHECK(full.truncate_prompt_tokens == -1);
  CHECK(full.model == "m");
  CHECK(full.user == "u");
  auto wrong = [](const std::string& field) {
    return embedding_refuses(R"("input":"a",)" + field);
  };
  CHECK(wrong(R"("encoding_format":"hex")") == "encoding_format");
  CHECK(wrong(R"("dimensions":0)") == "dimensions");
  CHECK(wrong(R"("truncate_prompt_tokens":0)") == "truncate_prompt_tokens");
  CHECK(wrong(R"("truncate_prompt_tokens":-2)") == "truncate_prompt_tokens");
  CHECK(wrong(R"("normalize":false)") == "normalize");
  CHECK(wrong(R"("embed_dtype":"float16")") == "embed_dtype");
  CHECK(wrong(R"("messages":[])") == "messages");
  CHECK(wrong(R"("normalize":true,"embed_dtype":"float32")").empty());
}

TEST_CASE("scores pair texts, or one text with all others") {
  auto one = parse_score_request(R"({"text_1":"a","text_2":["b","c"]})");
  CHECK(one->first == std::vector<std::string>{"a"});
  CHECK(one->second == std::vector<std::string>{"b", "c"});
  CHECK(parse_score_request(R"({"queries":["a","b"],"documents":["c","d"]})")
            ->second == std::vector<std::string>{"c", "d"});
  CHECK(score_refuses(R"("text_1":["a","b"],"text_2":["c"])") == "text_2");
  CHECK(score_refuses(R"("text_1":["a","b"],"text_2":["c","d","e"])") ==
        "text_2");
  CHECK(score_refuses(R"("text_1":"a")") == "text_2");
  CHECK(score_refuses(R"("text_2":"a")") == "text_1");
  CHECK(score_refuses(R"("text_1":"a","text_2":[])") == "text_2");
  CHECK(score_refuses(R"("text_1":"a","text_2":[1])") == "text_2[0]");
  CHECK(score_refuses(R"("text_1":"a","text_2":"b","use_activation":false)") ==
        "use_activation");
}

TEST_CASE("a ranking has a query and documents, texts or objects") {
  auto request = parse_rerank_request(
      R"({"query":"q","documents":["a",{"text":"b"}],"top_n":1})");
  CHECK(request->query == "q");
  CHECK(request->documents == std::vector<std::string>{"a", "b"});
  CHECK(request->top_n == 1);
  CHECK(request->return_documents);
  CHECK(rerank_refuses(R"("documents":["a"])") == "query");
  CHECK(rerank_refuses(R"("query":"q")") == "documents");
  CHECK(rerank_refuses(R"("query":"q","documents":[{"t":"b"}])") ==
        "documents[0]");
  CHECK(rerank_refuses(R"("query":"q","documents":["a"],"top_n":-1)") ==
        "top_n");
}

TEST_CASE("vectors are shown as numbers or as base64") {
  answer_head head;
  head.id = "embd-1";
  head.model = "m";
  head.created = 5;
  CHECK(embeddings_body(head, {{0.5f, -1}, {2, 0}}, false, {7, 0, 0}) ==
        R"({"id":"embd-1","object":"list","created":5,"model":"m","data":[)"
        R"({"index":0,"object":"embedding","embedding":[0.5,-1.0]},)"
        R"({"index":1,"object":"embedding","embedding":[2.0,0.0]}],"usage":)"
        R"({"prompt_tokens":7,"total_tokens":7,"completion_tokens":0,)"
        R"("prompt_tokens_details":null}})");
  auto text = [&](const std::vector<float>& vector) {
    simdjson::dom::parser parser;
    auto body = embeddings_body(head, {vector}, true, {});
    return std::string{std::string_view{
        parser.parse(body)["data"].at(0)["embedding"].get_string()}};
  };
  CHECK(text({1}) == "AACAPw==");
  CHECK(text({1, -2}) == "AACAPwAAAMA=");
  CHECK(text({1, -2, 0.5f}) == "AACAPwAAAMAAAAA/");
}

TEST_CASE("scores and rankings are shown") {
  answer_head head;
  head.id = "x";
  head.model = "m";
  CHECK(scores_body(head, {0.25f}, {3, 0, 0}) ==
        R"({"id":"x","object":"list","created":0,"model":"m","data":[)"
        R"({"index":0,"object":"score","score":0.25}],"usage":)"
        R"({"prompt_tokens":3,"total_tokens":3,"completion_tokens":0,)"
        R"("prompt_tokens_details":null}})");
  std::string document = "d\"";
  CHECK(ranking_body(head, {{1, 0.5f, &document}, {0, 0.25f, nullptr}}, {}) ==
        R"({"id":"x","model":"m","usage":{"prompt_tokens":0,"total_tokens":0,)"
        R"("completion_tokens":0,"prompt_tokens_details":null},"results":[)"
        R"({"index":1,"document":{"text":"d\""},"relevance_score":0.5},)"
        R"({"index":0,"relevance_score":0.25}]})");
}
