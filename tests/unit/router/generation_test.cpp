#include "router/edge.hpp"
#include "router/generation.hpp"
#include "tests/unit/router/byte_model.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::router;
using namespace troupe::test;

namespace {

std::shared_ptr<const model_text> model() {
  static auto made = [] {
    auto bytes = text::encode(byte_model_card());
    return *model_text::make(std::string{bytes.begin(), bytes.end()});
  }();
  return made;
}

protocol::model_route route(std::string name, std::string prefix = "/") {
  protocol::model_route out;
  out.application = "app";
  out.route_prefix = std::move(prefix);
  out.model = std::move(name);
  out.replicas.resize(1);
  return out;
}

api::api_result<generation> completion(std::string_view body) {
  generation_context context;
  context.request_id = "id";
  context.seed = 77;
  context.created = 5;
  return prepare(*parse_request(false, body), route("m"), model(), context);
}

} // namespace

TEST_CASE("what a request does not say the model's card does") {
  auto card = byte_model_card();
  card.defaults = {.temperature = 0.25f,
                   .top_p = 0.5f,
                   .top_k = 7,
                   .min_p = 0.125f,
                   .repetition_penalty = 1.5f,
                   .seed = 3};
  auto bytes = text::encode(card);
  auto made = *model_text::make(std::string{bytes.begin(), bytes.end()});
  auto params = [&](std::string_view body, std::uint64_t turn) {
    generation_context context;
    context.request_id = "id";
    context.seed = 77;
    context.turn = turn;
    auto out = prepare(*parse_request(false, body), route("m"), made, context);
    return out.value().what.choices.front().params;
  };
  auto silent = params(R"({"prompt":"a","top_p":null})", 0);
  CHECK(silent.temperature == 0.25f);
  CHECK(silent.top_p == 0.5f);
  CHECK(silent.top_k == 7);
  CHECK(silent.min_p == 0.125f);
  CHECK(silent.repetition_penalty == 1.5f);
  CHECK(silent.seed != 77);
  CHECK(silent.seed == params(R"({"prompt":"b"})", 0).seed);
  CHECK(silent.seed != params(R"({"prompt":"a"})", 1).seed);
  auto clear = params(R"({"prompt":"a","temperature":1,"top_p":1,"top_k":-1,)"
                      R"("min_p":0,"repetition_penalty":1,"seed":5})",
                      0);
  CHECK(clear.temperature == 1.0f);
  CHECK(clear.top_p == 1.0f);
  CHECK(clear.top_k == 0);
  CHECK(clear.min_p == 0.0f);
  CHECK(clear.repetition_penalty == 1.0f);
  CHECK(clear.seed == 5);
}

TEST_CASE("every choice has its prompt, its number and the request's seed") {
  auto made = completion(R"({"prompt":["ab","c"],"n":3})");
  REQUIRE(made.has_value());
  auto& choices = made->what.choices;
  REQUIRE(choices.size() == 6);
  for (std::uint32_t i = 0; i < 6; ++i) {
    CHECK(choices[i].params.choice == i);
    CHECK(choices[i].params.seed == 77);
    CHECK(choices[i].prompt == ids_of(i < 3 ? "ab" : "c"));
    CHECK(choices[i].request_id == "id");
    CHECK(choices[i].params.max_tokens == 16);
  }
  CHECK(made->plan.head.id == "cmpl-id");
  CHECK(made->plan.head.created == 5);
  CHECK(made->plan.n == 3);
}

TEST_CASE("parameters reach the records and the plan") {
  auto made = completion(
      R"({"prompt":"a","temperature":0.5,"stop":["x"],"stop_token_ids":[3],)"
      R"("min_tokens":2,"logprobs":1,"echo":true,"return_token_ids":true,)"
      R"("stream":true,"stream_options":{"include_usage":true}})");
  REQUIRE(made.has_value());
  auto& params = made->what.choices[0].params;
  CHECK(params.temperature == 0.5f);
  CHECK(params.stop_token_ids == std::vector<token_id>{3});
  CHECK(params.logprobs == 1);
  CHECK(params.prompt_logprobs == 1);
  auto& plan = made->plan;
  CHECK(plan.stop == std::vector<std::string>{"x"});
  CHECK(plan.min_tokens == 2);
  CHECK(plan.with_logprobs);
  CHECK(plan.echo);
  CHECK(!plan.echo_only);
  CHECK(plan.prompt_texts == std::vector<std::string>{"a"});
  CHECK(plan.head.return_token_ids);
  CHECK(plan.include_usage);
}

TEST_CASE("a wrong prompt of several is named by its place") {
  auto made = completion(R"({"prompt":[[1],[2,300]]})");
  REQUIRE(!made);
  CHECK(made.error().param == "prompt[1]");
}

TEST_CASE("models are found by prefix and name") {
  protocol::routing_table table;
  table.models = {route("a"), route("b"), route("c", "/app")};
  CHECK((*find_model(table, "/", "b"))->model == "b");
  CHECK((*find_model(table, "/app", ""))->model == "c");
  CHECK(find_model(table, "/", "").error().status == 400);
  CHECK(find_model(table, "/", "c").error().code == "model_not_found");
  CHECK(find_model(table, "/x", "").error().status == 404);
  table.models[0].replicas.clear();
  table.models[0].status = "DEPLOYING";
  auto* starting = *find_model(table, "/", "a");
  CHECK(not_ready(*starting).status == 503);
  CHECK(not_ready(*starting).message.find("DEPLOYING") != std::string::npos);
}

TEST_CASE("a path belongs to the longest prefix that ends at a slash") {
  protocol::routing_table table;
  table.models = {route("a"), route("b", "/app"), route("c", "/app/two")};
  CHECK(locate(table, "/v1/models")->prefix == "/");
  CHECK(locate(table, "/app/v1/models")->prefix == "/app");
  CHECK(locate(table, "/app/v1/models")->rest == "/v1/models");
  CHECK(locate(table, "/app/two/v1")->prefix == "/app/two");
  CHECK(locate(table, "/apple/v1")->prefix == "/");
  table.models.erase(table.models.begin());
  CHECK(!locate(table, "/v1/models"));
  CHECK(!locate(table, "/app"));
}
