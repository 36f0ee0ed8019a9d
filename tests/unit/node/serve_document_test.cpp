#include "node/serve_document.hpp"

#include <catch2/catch.hpp>

#include <string>

using namespace troupe;

namespace {

std::string application(const std::string& name, const std::string& more = "") {
  return R"({"name":")" + name + R"(","route_prefix":"/)" + name +
         R"(","import_path":"ray.serve.llm:build_openai_app","args":)"
         R"({"llm_configs":[{"model_loading_config":{"model_id":"m",)"
         R"("model_source":"/models/m.gguf"})" +
         more + "}]}}";
}

std::string document(const std::string& applications,
                     const std::string& more = "") {
  return R"({"applications":[)" + applications + "]" + more + "}";
}

node::read_document_result read(const std::string& json) {
  return node::read_document(json, "request", false, 1000);
}

bool holds(const std::string& text, const std::string& part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
  return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("a document is kept application by application") {
  auto out = read(document(application("a") + "," + application("b"),
                           R"(,"proxy_location":"HeadOnly")"));
  REQUIRE(out.wanted.has_value());
  CHECK_FALSE(out.findings.has_errors());
  CHECK(out.wanted->models.size() == 2);
  CHECK(out.wanted->models[0].spec.model_source == "/models/m.gguf");
  CHECK(out.wanted->models[0].created == 1000);
  REQUIRE(out.wanted->applications.size() == 2);
  CHECK(out.wanted->applications[1].name == "b");
  CHECK(out.wanted->applications[1].json == application("b"));
  CHECK(out.wanted->rest_json == R"({"proxy_location":"HeadOnly"})");
  // What is shown of it is a document that asks for the same.
  auto again = read(node::shown_document(*out.wanted));
  REQUIRE(again.wanted.has_value());
  CHECK(*again.wanted == *out.wanted);
}

TEST_CASE("a bad document gives findings and nothing to deploy") {
  for (std::string bad : {"", "{", "[]", "null", "{}", "\xff\xfe", "[1, 2",
                          R"({"applications":[]})", "applications: []"}) {
    INFO(bad);
    auto out = read(bad);
    CHECK_FALSE(out.wanted.has_value());
    CHECK(out.findings.error_count() > 0);
  }
  auto out = read(document(application("a"), R"(,"applicatons":1,"x":2)"));
  CHECK_FALSE(out.wanted.has_value());
  CHECK(out.findings.error_count() == 2);
  CHECK(out.findings.all()[0].path == "applicatons");
  CHECK(out.findings.all()[0].where.line == 1);
  CHECK_FALSE(read(std::string(5u << 20, ' ')).wanted.has_value());
  CHECK_FALSE(read(std::string(100'000, '[')).wanted.has_value());
}

TEST_CASE("secrets of a document are not shown") {
  auto out = read(document(
      application("a", R"(,"runtime_env":{"env_vars":{"HF_TOKEN":"abc","TZ":)"
                       R"("UTC","x":"hf_1234","My_Key":"abc"}})"),
      R"(,"troupe":{"api_keys":["sk-one-of-two","sk-two-of-two"]})"));
  REQUIRE(out.wanted.has_value());
  CHECK(out.wanted->settings.api_keys.size() == 2);
  auto shown = node::shown_document(*out.wanted);
  holds(shown, R"("api_keys":["***","***"])");
  holds(shown, R"("HF_TOKEN":"***")");
  holds(shown, R"("My_Key":"***")");
  holds(shown, R"("x":"***")");
  holds(shown, R"("TZ":"UTC")");
  CHECK(shown.find("one-of-two") == std::string::npos);
  CHECK(shown.find("abc") == std::string::npos);
  // Nor is what is hidden taken for a value.
  auto again = read(shown);
  CHECK_FALSE(again.wanted.has_value());
  CHECK(again.findings.error_count() == 5);
}

TEST_CASE("what is no JSON is shown as nothing") {
  CHECK(node::without_secrets("{") == "null");
  CHECK(node::without_secrets(R"({"env_vars":[1],"api_keys":"all"})") ==
        R"({"env_vars":[1],"api_keys":[]})");
  CHECK(node::without_secrets(R"([1.5,-2,true,null,"a\"\n"])") ==
        R"([1.5,-2,true,null,"a\"\n"])");
}
