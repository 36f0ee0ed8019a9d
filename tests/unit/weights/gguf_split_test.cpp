#include "engine/weights/gguf.hpp"
#include "engine/weights/split_files.hpp"

#include "tests/actors/temporary_directory.hpp"
#include "tests/unit/weights/gguf_builder.hpp"

#include <catch2/catch.hpp>
#include <fstream>
#include <random>

using namespace troupe;
using namespace troupe::test;
using weights::gguf_file;

namespace {

using part_files = std::vector<gguf_builder>;

/// A model of four tensors in three files.
part_files sample() {
  part_files out(3);
  for (std::uint16_t i = 0; i < 3; ++i) {
    out[i].set("split.no", 2, byte_writer{}.put(i).bytes());
    out[i].set("split.count", 2, byte_writer{}.put(std::uint16_t{3}).bytes());
    out[i].set("split.tensors.count", gguf_i32, byte_writer{}.put(4).bytes());
  }
  out[0].string("general.architecture", "llama");
  out[0].f32_tensor("a", {4}).f32_tensor("b", {8});
  out[1].f32_tensor("c", {12});
  out[2].f32_tensor("d", {16});
  return out;
}

std::vector<std::string> build(const part_files& parts) {
  std::vector<std::string> out;
  for (const auto& one : parts)
    out.push_back(one.build());
  return out;
}

result<std::unique_ptr<gguf_file>>
parse(const std::vector<std::string>& bytes) {
  std::vector<weights::gguf_bytes> files;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    files.push_back({as_bytes(bytes[i]), std::to_string(i + 1) + ".gguf"});
  return gguf_file::parse(std::move(files));
}

/// Expects that file `number` is named and what is wrong with it.
void refused(const part_files& parts, int number, const std::string& words) {
  auto bytes = build(parts);
  auto file = parse(bytes);
  REQUIRE(!file);
  CHECK(file.error().code == errc::corrupt);
  CHECK(file.error().message.rfind(std::to_string(number) + ".gguf: ", 0) == 0);
  CHECK_THAT(file.error().message, Catch::Contains(words));
}

std::filesystem::path write(const temporary_directory& directory,
                            const std::string& name, const std::string& bytes) {
  std::ofstream(directory.path() / name, std::ios::binary) << bytes;
  return directory.path() / name;
}

} // namespace

TEST_CASE("the files of a split model are read as one") {
  auto bytes = build(sample());
  auto file = parse(bytes);
  REQUIRE(file.has_value());
  REQUIRE((*file)->tensors().size() == 4);
  CHECK((*file)->name() == "1.gguf");
  for (auto [name, size] :
       {std::pair{"a", 16}, {"b", 32}, {"c", 48}, {"d", 64}}) {
    auto* tensor = (*file)->find_tensor(name);
    REQUIRE(tensor);
    CHECK(tensor->name == name);
    CHECK(tensor->bytes.size() == static_cast<std::size_t>(size));
  }
  CHECK((*file)->find("general.architecture"));
}

TEST_CASE("later files may repeat the first one's metadata") {
  auto parts = sample();
  parts[2].string("general.architecture", "llama");
  parts[1].u32("general.alignment", 64).alignment = 64;
  CHECK(parse(build(parts)).has_value());
  parts[2].string("general.architecture", "qwen2");
  refused(parts, 3, "'general.architecture' differs from 1.gguf");
  parts = sample();
  parts[1].u32("llama.block_count", 2);
  refused(parts, 2, "'llama.block_count' is not in 1.gguf");
}

TEST_CASE("what a split model's files say of themselves must be true") {
  auto parts = sample();
  std::swap(parts[0], parts[1]);
  refused(parts, 1, "'split.no' is 1, not 0");
  parts = sample();
  parts[2].u32("split.count", 0xffffffff);
  refused(parts, 3, "'split.count' is 4294967295, not 3");
  for (std::uint32_t count : {0u, 3u, 5u, ~0u}) {
    parts = sample();
    parts[1].u32("split.tensors.count", count);
    refused(parts, 2, "'split.tensors.count' is");
  }
  for (const char* key : {"split.no", "split.count", "split.tensors.count"}) {
    parts = sample();
    parts[1].erase(key);
    refused(parts, 2, "without metadata '" + std::string{key} + "'");
    parts[1].string(key, "1");
    refused(parts, 2, "'" + std::string{key} + "' is not a number");
    parts[1].set(key, gguf_i32, byte_writer{}.put(-1).bytes());
    refused(parts, 2, "'" + std::string{key} + "' is not a number");
  }
}

TEST_CASE("a tensor in two files of a split model is refused") {
  auto parts = sample();
  parts[2].tensors[0].name = "b";
  refused(parts, 3, "tensor 'b' is in a file before it too");
}

TEST_CASE("what all files of a model cost is bounded together") {
  // Each alone is within the bound.
  byte_writer many;
  const std::uint64_t count = 600'000;
  many.put(std::uint32_t{gguf_string}).put(count);
  const auto strings = many.bytes() + std::string(count * 8, '\0');
  auto parts = sample();
  parts[0].set("many", gguf_array, strings);
  CHECK(parse(build(parts)).has_value());
  for (auto& part : parts)
    part.set("many", gguf_array, strings);
  auto file = parse(build(parts));
  REQUIRE(!file);
  CHECK(file.error().code == errc::limit);
}

TEST_CASE("any file of a split model opens all of them") {
  temporary_directory directory;
  auto bytes = build(sample());
  std::vector<std::filesystem::path> paths;
  for (int i = 0; i < 3; ++i)
    paths.push_back(write(directory,
                          "m-0000" + std::to_string(i + 1) + "-of-00003.gguf",
                          bytes[i]));
  std::string hash;
  for (const auto& path : paths) {
    auto file = gguf_file::open(path);
    REQUIRE(file.has_value());
    CHECK((*file)->tensors().size() == 4);
    CHECK((*file)->name() == "m-00001-of-00003.gguf");
    CHECK(!(*file)->changed());
    if (hash.empty())
      hash = (*file)->content_hash(1);
    CHECK((*file)->content_hash(2) == hash);
  }
  auto file = gguf_file::open(paths[0]);
  std::ofstream(paths[2], std::ios::app) << "more";
  CHECK((*file)->changed());
  CHECK((*gguf_file::open(paths[0]))->content_hash(1) != hash);
  std::filesystem::remove(paths[1]);
  auto missing = gguf_file::open(paths[0]);
  REQUIRE(!missing);
  CHECK(missing.error().code == errc::not_found);
  CHECK_THAT(missing.error().message, Catch::Contains("m-00002-of-00003.gguf"));
}

TEST_CASE("a file's name and its metadata agree on whether it is split") {
  temporary_directory directory;
  auto parts = sample();
  auto alone = gguf_file::open(write(directory, "m.gguf", parts[0].build()));
  REQUIRE(!alone);
  CHECK(alone.error().code == errc::invalid_argument);
  CHECK_THAT(alone.error().message, Catch::Contains("m.gguf: one of 3 files") &&
                                        Catch::Contains("-of-00003.gguf"));
  gguf_builder whole;
  whole.f32_tensor("a", {4});
  CHECK(
      gguf_file::open(write(directory, "w-00001-of-00001.gguf", whole.build()))
          .has_value());
  write(directory, "x-00001-of-00002.gguf", whole.build());
  auto claimed =
      gguf_file::open(write(directory, "x-00002-of-00002.gguf", whole.build()));
  REQUIRE(!claimed);
  CHECK(claimed.error().code == errc::corrupt);
  whole.u32("split.count", 1);
  CHECK(
      gguf_file::open(write(directory, "one.gguf", whole.build())).has_value());
  auto many = gguf_file::open(directory.path() / "m-00001-of-99999.gguf");
  REQUIRE(!many);
  CHECK(many.error().code == errc::limit);
}

TEST_CASE("the place of a split file is read from its name") {
  auto place = weights::split_place_of("dir/a-b-00002-of-00010.gguf");
  REQUIRE(place.has_value());
  CHECK(place->number == 2);
  CHECK(place->count == 10);
  for (const char* name :
       {"m.gguf", "-00001-of-00002.gguf", "m-00000-of-00002.gguf",
        "m-00003-of-00002.gguf", "m-0001-of-0002.gguf", "m-00001-of-00002.bin",
        "m_00001-of-00002.gguf", "m-00001-of-0000x.gguf",
        "m--0001-of-00002.gguf", "m-00001-of-00000.gguf", ""})
    CHECK(!weights::split_place_of(name).has_value());
  CHECK(weights::split_file("dir/m-00002-of-00003.gguf", 3) ==
        "dir/m-00003-of-00003.gguf");
  CHECK(weights::first_split_file("m-00002-of-00003.gguf") ==
        "m-00001-of-00003.gguf");
  CHECK(weights::first_split_file("m.gguf") == "m.gguf");
}

TEST_CASE("no mutation of a split model does harm") {
  const auto seed = std::uint64_t{20'261'128};
  INFO("seed " << seed);
  std::mt19937_64 random{seed};
  const auto whole = build(sample());
  std::size_t taken = 0;
  for (int round = 0; round < 10'000; ++round) {
    auto bytes = whole;
    auto& one = bytes[random() % 3];
    one[random() % one.size()] = static_cast<char>(random());
    if (random() % 8 == 0)
      bytes.resize(random() % 3 + 1);
    if (auto file = parse(bytes)) {
      ++taken;
      for (const auto& tensor : (*file)->tensors())
        CHECK(tensor.matrix().bytes.size() == tensor.bytes.size());
    }
  }
  CHECK(taken > 100);
  CHECK(taken < 9'900);
}
