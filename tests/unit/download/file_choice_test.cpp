#include "engine/weights/download/file_choice.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::download;

using names = std::vector<std::string>;

namespace {

names chosen(const names& all, const std::string& file = "") {
  auto out = choose_files(all, file, wanted::model);
  REQUIRE(out.has_value());
  return out->names;
}

std::string refusal(const names& all, const std::string& file = "",
                    wanted what = wanted::model) {
  auto out = choose_files(all, file, what);
  REQUIRE_FALSE(out.has_value());
  return out.error().message;
}

} // namespace

TEST_CASE("safetensors come with all configuration, once") {
  CHECK(chosen({".gitattributes", "README.md", "config.json",
                "consolidated.safetensors", "model.safetensors",
                "onnx/config.json", "original/params.json", "pytorch.bin",
                "1_Pooling/config.json", "tokenizer.json"}) ==
        names{"config.json", "1_Pooling/config.json", "tokenizer.json",
              "model.safetensors"});
  CHECK(chosen({"config.json", "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json"})
            .size() == 4);
  CHECK(chosen({"config.json", "odd.safetensors"}) ==
        names{"config.json", "odd.safetensors"});
}

TEST_CASE("missing parts and missing configuration are told") {
  CHECK(refusal({"config.json", "model-00001-of-00002.safetensors"}) ==
        "model.safetensors: 1 of its 2 parts are there");
  CHECK(refusal({"model.safetensors"}) == "no config.json in it");
  CHECK(refusal({"m-00002-of-00002.gguf"}) == "m.gguf: 1 of its 2 parts are "
                                              "there");
}

TEST_CASE("a .gguf file is chosen by name, by part, or because it is alone") {
  names all{"config.json", "m.Q4_0.gguf", "m.Q4_K_M.gguf", "m.Q8_0.gguf"};
  CHECK(chosen({"README.md", "m.gguf"}) == names{"m.gguf"});
  CHECK(chosen(all, "Q4_0") == names{"m.Q4_0.gguf"});
  CHECK(chosen(all, "q4_k_m") == names{"m.Q4_K_M.gguf"});
  CHECK(chosen(all, "m.Q8_0.gguf") == names{"m.Q8_0.gguf"});
  CHECK(refusal(all).find("3 .gguf files") == 0);
  CHECK(refusal(all, "Q4").find("no .gguf file matches \"Q4\"") == 0);
  CHECK(refusal(all, "m").find("3 .gguf files") == 0);
  CHECK(chosen({"config.json", "model.safetensors", "m.gguf"}, "m") ==
        names{"m.gguf"});
}

TEST_CASE("the parts of a .gguf file come together") {
  names all{"a-Q4-00001-of-00002.gguf", "a-Q4-00002-of-00002.gguf",
            "a-Q8.gguf"};
  auto out = choose_files(all, "Q4", wanted::model);
  REQUIRE(out.has_value());
  CHECK(out->names == names{all[0], all[1]});
  CHECK(out->entry == all[0]);
}

TEST_CASE("pickled weights are refused by name") {
  CHECK(refusal({"config.json", "pytorch_model.bin"})
            .find("pytorch_model.bin: "
                  "pickled") == 0);
  CHECK(refusal({"README.md"}) == "no .safetensors and no .gguf file in it");
  CHECK(refusal({}) == "no .safetensors and no .gguf file in it");
}

TEST_CASE("a tokenizer is the small files") {
  names all{"config.json", "model.safetensors", "tokenizer.json",
            "tokenizer_config.json"};
  auto out = choose_files(all, "", wanted::tokenizer);
  REQUIRE(out.has_value());
  CHECK(out->names ==
        names{"config.json", "tokenizer.json", "tokenizer_config.json"});
  CHECK(refusal({"m.gguf"}, "", wanted::tokenizer) == "no tokenizer.json in "
                                                      "it");
}
