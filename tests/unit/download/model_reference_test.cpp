#include "engine/weights/download/model_reference.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::download;

namespace {

template <class T>
T read(std::string_view text) {
  auto out = parse_model_reference(text);
  INFO(text);
  REQUIRE(out.has_value());
  REQUIRE(std::holds_alternative<T>(*out));
  return std::get<T>(*out);
}

} // namespace

TEST_CASE("a hub's model has a revision and a file") {
  CHECK(read<hub_reference>("org/name") ==
        hub_reference{"org/name", "main", ""});
  CHECK(read<hub_reference>("gpt2") == hub_reference{"gpt2", "main", ""});
  CHECK(read<hub_reference>("org/name@v1.0") ==
        hub_reference{"org/name", "v1.0", ""});
  CHECK(read<hub_reference>("org/name@refs/pr/1:Q4_K_M") ==
        hub_reference{"org/name", "refs/pr/1", "Q4_K_M"});
  CHECK(read<hub_reference>("org/name:model.Q4_0.gguf").file ==
        "model.Q4_0.gguf");
}

TEST_CASE("a bucket has a prefix, or one object") {
  CHECK(read<bucket_reference>("s3://bucket/a/b/") ==
        bucket_reference{false, false, "bucket", "a/b", ""});
  CHECK(read<bucket_reference>("gs://anonymous@bucket") ==
        bucket_reference{true, true, "bucket", "", ""});
  CHECK(read<bucket_reference>("s3://bucket/a/m.gguf") ==
        bucket_reference{false, false, "bucket", "a", "m.gguf"});
  CHECK(read<bucket_reference>("s3://bucket/m.gguf") ==
        bucket_reference{false, false, "bucket", "", "m.gguf"});
}

TEST_CASE("a path stays a path") {
  for (const auto* text : {"/m", "./m", "../m", "~/m", "m.gguf", "a/m.gguf"})
    CHECK(read<std::filesystem::path>(text) == text);
}

TEST_CASE("a reference is written as it is read") {
  for (const auto* text :
       {"org/name", "org/name@v1", "org/name@v1:Q4_0", "s3://bucket",
        "s3://anonymous@bucket/a/b:Q4_0", "s3://bucket/:a@b", "gs://bucket/a",
        "org/name.gguf@main", "/m"})
    CHECK(to_string(*parse_model_reference(text)) == text);
}

TEST_CASE("what names no model is refused") {
  for (std::string_view text : {std::string_view{""},
                                std::string_view{"a/b/c"},
                                std::string_view{"org/"},
                                std::string_view{"org/..name"},
                                std::string_view{"org/na--me"},
                                std::string_view{"org/name.git"},
                                std::string_view{"org/na me"},
                                std::string_view{"org/name\0", 9},
                                std::string_view{"org/name@"},
                                std::string_view{"org/name@../x"},
                                std::string_view{"org/name@a?b"},
                                std::string_view{"org/name:../x"},
                                std::string_view{"org/name:"},
                                std::string_view{"org/%2e%2e"},
                                std::string_view{"http://host/x"},
                                std::string_view{"file:///etc"},
                                std::string_view{"abfss://c@a/x"},
                                std::string_view{"s3://"},
                                std::string_view{"s3://a"},
                                std::string_view{"s3://bucket/../x"},
                                std::string_view{"s3://b_/x"},
                                std::string_view{"s3://bucket//x"},
                                std::string_view{"s3://bucket/x\x11y.gguf"},
                                std::string_view{"s3://key:secret@bucket/x"}}) {
    INFO(text);
    CHECK_FALSE(parse_model_reference(text).has_value());
  }
  CHECK_FALSE(parse_model_reference(std::string(10'000, 'a')).has_value());
  CHECK(parse_model_reference("az://x/y").error().message.find("az://") == 0);
  auto with_keys = parse_model_reference("s3://key:canary@bucket/x");
  CHECK(with_keys.error().message.find("canary") == std::string::npos);
}

TEST_CASE("a safe name stays in its directory") {
  for (std::string_view name : {"a", "a.b/c-d", "..a", "a..", "1_Pooling/x"})
    CHECK(is_safe_name(name));
  for (std::string_view name :
       {std::string_view{""}, std::string_view{"/a"}, std::string_view{"a/"},
        std::string_view{"a//b"}, std::string_view{".."},
        std::string_view{"a/../b"}, std::string_view{"./a"},
        std::string_view{"a\\b"}, std::string_view{"a\0b", 3},
        std::string_view{"a\nb"}}) {
    INFO(name);
    CHECK_FALSE(is_safe_name(name));
  }
  CHECK_FALSE(is_safe_name(std::string(256, 'a')));
  CHECK_FALSE(is_safe_name(std::string(2000, 'a')));
}
