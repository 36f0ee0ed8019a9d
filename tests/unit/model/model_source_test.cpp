#include "engine/model/model_source.hpp"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>

using namespace troupe;

namespace {

namespace fs = std::filesystem;

/// A directory that goes away with this object.
class temporary_directory {
public:
  temporary_directory() {
    char name[] = "/tmp/troupe-model-XXXXXX";
    REQUIRE(::mkdtemp(name));
    path_ = name;
  }

  ~temporary_directory() {
    fs::remove_all(path_);
  }

  fs::path add(const char* name) const {
    std::ofstream(path_ / name) << "x";
    return path_ / name;
  }

  const fs::path& path() const {
    return path_;
  }

private:
  fs::path path_;
};

void refused(const fs::path& path, errc code, const std::string& words) {
  auto found = model::resolve_model_source(path);
  REQUIRE(!found);
  CHECK(found.error().code == code);
  CHECK_THAT(found.error().message, Catch::Contains(words));
  CHECK_THAT(found.error().message, Catch::Contains(path.string()));
}

} // namespace

TEST_CASE("a model is a .gguf file or the only one in a directory") {
  temporary_directory directory;
  refused(directory.path(), errc::not_found, "no .gguf file");
  directory.add("README.md");
  auto file = directory.add("one.gguf");
  CHECK(*model::resolve_model_source(file) == file);
  CHECK(*model::resolve_model_source(directory.path()) == file);
  auto other = directory.add("two.gguf");
  CHECK(*model::resolve_model_source(other) == other);
  refused(directory.path(), errc::invalid_argument, "2 .gguf models");
}

TEST_CASE("the files of one split model are one model") {
  temporary_directory directory;
  auto second = directory.add("m-00002-of-00003.gguf");
  auto first = directory.path() / "m-00001-of-00003.gguf";
  // The missing one is named when it is opened.
  CHECK(*model::resolve_model_source(directory.path()) == first);
  directory.add("m-00001-of-00003.gguf");
  directory.add("m-00003-of-00003.gguf");
  CHECK(*model::resolve_model_source(directory.path()) == first);
  CHECK(*model::resolve_model_source(second) == second);
  directory.add("m-00001-of-00002.gguf");
  refused(directory.path(), errc::invalid_argument, "2 .gguf models");
}

TEST_CASE("what is no GGUF model is refused by name") {
  temporary_directory directory;
  refused(directory.path() / "none.gguf", errc::not_found, "no such file");
  auto tensors = directory.add("model.safetensors");
  refused(directory.path(), errc::unsupported, "safetensors");
  refused(tensors, errc::unsupported, "safetensors");
  refused(directory.add("model.bin"), errc::unsupported, "not a .gguf file");
}
