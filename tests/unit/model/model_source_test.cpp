#include "engine/model/model_source.hpp"

#include "tests/unit/weights/model_directory.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using test::model_directory;

namespace {

namespace fs = std::filesystem;

void refused(const fs::path& path, errc code, const std::string& words) {
  auto found = model::resolve_model_source(path);
  REQUIRE(!found);
  CHECK(found.error().code == code);
  CHECK_THAT(found.error().message, Catch::Contains(words));
  CHECK_THAT(found.error().message, Catch::Contains(path.string()));
}

} // namespace

TEST_CASE("a model is a .gguf file or the only one in a directory") {
  model_directory directory;
  refused(directory.path(), errc::not_found, "neither a .gguf file nor");
  directory.write("README.md", "x");
  auto file = directory.write("one.gguf", "x");
  CHECK(*model::resolve_model_source(file) == file);
  CHECK(*model::resolve_model_source(directory.path()) == file);
  auto other = directory.write("two.gguf", "x");
  CHECK(*model::resolve_model_source(other) == other);
  refused(directory.path(), errc::invalid_argument, "2 .gguf models");
}

TEST_CASE("the files of one split model are one model") {
  model_directory directory;
  auto second = directory.write("m-00002-of-00003.gguf", "x");
  auto first = directory.path() / "m-00001-of-00003.gguf";
  // The missing one is named when it is opened.
  CHECK(*model::resolve_model_source(directory.path()) == first);
  directory.write("m-00001-of-00003.gguf", "x");
  directory.write("m-00003-of-00003.gguf", "x");
  CHECK(*model::resolve_model_source(directory.path()) == first);
  CHECK(*model::resolve_model_source(second) == second);
  directory.write("m-00001-of-00002.gguf", "x");
  refused(directory.path(), errc::invalid_argument, "2 .gguf models");
}

TEST_CASE("a model is a directory of config.json and safetensors") {
  model_directory directory;
  auto tensors = directory.write("model.safetensors", "x");
  refused(directory.path(), errc::not_found, "no config.json");
  directory.write("config.json", "{}");
  CHECK(*model::resolve_model_source(directory.path()) == directory.path());
  refused(tensors, errc::unsupported, "name the directory");
}

TEST_CASE("what is no model is refused by name") {
  model_directory directory;
  refused(directory.path() / "none.gguf", errc::not_found, "no such file");
  directory.write("config.json", "{}");
  auto pickled = directory.write("pytorch_model.bin", "x");
  refused(directory.path(), errc::unsupported, "pickled weights");
  refused(pickled, errc::unsupported, "not a .gguf file");
}
