#include "engine/weights/safetensors.hpp"

#include "tests/unit/weights/gguf_builder.hpp"
#include "tests/unit/weights/model_directory.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace troupe;
using namespace troupe::test;
using weights::safetensors_set;
using weights::stored_type;

namespace {

const std::string two_tensors =
    R"({"__metadata__":{"format":"pt"},)"
    R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})";

result<std::vector<weights::stored_tensor>> parse(const std::string& bytes) {
  return weights::parse_safetensors(as_bytes(bytes), "sample.safetensors");
}

/// Parses a header before `data_bytes` bytes and expects an error that says
/// `words`.
void refused(std::string_view header, std::size_t data_bytes,
             const std::string& words, errc code = errc::corrupt) {
  INFO(header.substr(0, 200));
  auto bytes = safetensors_file(header, std::string(data_bytes, '\1'));
  auto found = parse(bytes);
  REQUIRE(!found);
  CHECK(found.error().message.rfind("sample.safetensors: ", 0) == 0);
  CHECK_THAT(found.error().message, Catch::Contains(words));
  CHECK(found.error().code == code);
}

std::string tensor_entry(std::string_view dtype, std::string_view shape,
                         std::string_view offsets) {
  return "{\"a\":{\"dtype\":\"" + std::string{dtype} +
         "\",\"shape\":" + std::string{shape} +
         ",\"data_offsets\":" + std::string{offsets} + "}}";
}

} // namespace

TEST_CASE("a safetensors file gives its tensors") {
  auto bytes = safetensors_file(two_tensors + "   ", std::string(32, '\7'));
  auto found = parse(bytes);
  REQUIRE(found.has_value());
  REQUIRE(found->size() == 2);
  const auto& a = (*found)[0];
  CHECK(a.name == "a");
  CHECK(a.type == stored_type::f32);
  CHECK(a.shape == std::vector<std::int64_t>{2, 3});
  CHECK(a.bytes.size() == 24);
  CHECK(a.bytes.data() == as_bytes(bytes).data() + bytes.size() - 32);
  CHECK((*found)[1].type == stored_type::bf16);
}

TEST_CASE("scalars and tensors without elements are read") {
  auto header = R"({"s":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
                R"("e":{"dtype":"U8","shape":[3,0],"data_offsets":[8,8]}})";
  auto bytes = safetensors_file(header, std::string(8, '\1'));
  auto found = parse(bytes);
  REQUIRE(found.has_value());
  CHECK((*found)[0].elements() == 1);
  CHECK((*found)[1].elements() == 0);
}

TEST_CASE("a file without a whole header is refused") {
  CHECK(!parse(std::string(7, '\0')));
  auto length = [](std::uint64_t value) {
    return byte_writer{}.put(value).raw("{}").bytes();
  };
  CHECK_THAT(parse(length(3)).error().message,
             Catch::Contains("does not fit the file"));
  CHECK_THAT(parse(length(~std::uint64_t{0})).error().message,
             Catch::Contains("100 MB"));
  CHECK_THAT(parse(length(100'000'001)).error().message,
             Catch::Contains("100 MB"));
  CHECK_THAT(parse(length(0)).error().message, Catch::Contains("'{'"));
}

TEST_CASE("a header of 100 MB is refused unparsed") {
  std::string header(100'000'000, ' ');
  header.front() = '{';
  header.back() = '}';
  refused(header, 0, "too many to be a model's", errc::limit);
}

TEST_CASE("a header that is not the format's JSON is refused") {
  refused(" {}", 0, "'{'");
  refused("[]", 0, "'{'");
  refused("{", 0, "header");
  refused("{\"a\":1}", 0, "is not an object");
  refused("{\"__metadata__\":{\"a\":1}}", 0, "something else than texts");
  refused("{\"__metadata__\":[]}", 0, "is not an object");
  refused("{\"a\":" + std::string(100'000, '['), 0, "header");
  std::string deep(100'000, '[');
  refused("{\"a\":" + deep + std::string(100'000, ']') + "}", 0, "header");
}

TEST_CASE("what a header says twice is refused") {
  refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
          R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
          2, "'a' is there twice");
  refused(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],)"
          R"("data_offsets":[0,1]}})",
          1, "says 'dtype' twice");
}

TEST_CASE("a tensor's entry is checked") {
  refused(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1, "no dtype");
  refused(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, "no shape");
  refused(R"({"a":{"dtype":"U8","shape":[1]}})", 1, "data_offsets");
  refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1,
          "unknown field 'x'");
  refused(tensor_entry("F4", "[1]", "[0,1]"), 1, "dtype F4", errc::unsupported);
  refused(tensor_entry("U8", "[-1]", "[0,1]"), 1, "dimension");
  refused(tensor_entry("U8", "[1.5]", "[0,1]"), 1, "dimension");
  refused(tensor_entry("U8", "[4294967296,4294967296]", "[0,0]"), 0,
          "dimension");
  refused(tensor_entry("F64", "[2305843009213693952]", "[0,0]"), 0,
          "say otherwise");
  refused(tensor_entry("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1,
          "9 dimensions");
  refused(tensor_entry("U8", "[1]", "[0]"), 1, "data_offsets");
  refused(tensor_entry("U8", "[1]", "[0,-1]"), 1, "data_offsets");
  refused(tensor_entry("U8", "[1]", "[1,0]"), 1, "ends before it begins");
  refused(tensor_entry("U8", "[2]", "[0,2]"), 1, "past the end");
  refused(tensor_entry("U8", "[2]", "[0,1]"), 1, "say otherwise");
  refused(tensor_entry("F16", "[1]", "[0,1]"), 1, "say otherwise");
  refused(R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
          "tensor name");
  refused(R"({"a\n":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
          "tensor name 'a?'");
}

TEST_CASE("tensors fill the file without holes and overlaps") {
  auto two = [](std::string_view first, std::string_view second) {
    return R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)" +
           std::string{first} +
           R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)" +
           std::string{second} + "}}";
  };
  CHECK(parse(safetensors_file(two("[2,4]", "[0,2]"), "abcd")).has_value());
  refused(two("[0,2]", "[1,3]"), 3, "overlaps");
  refused(two("[0,2]", "[0,2]"), 2, "overlaps");
  refused(two("[0,2]", "[3,5]"), 5, "hole");
  refused(two("[1,3]", "[3,5]"), 5, "hole");
  refused(two("[0,2]", "[2,4]"), 5, "belong to none");
  refused("{}", 1, "belong to none");
}

TEST_CASE("a damaged safetensors file gives an error or sound tensors") {
  auto whole = safetensors_file(two_tensors, std::string(32, '\7'));
  std::mt19937 random{7};
  int sound = 0;
  for (int round = 0; round < 20'000; ++round) {
    auto bytes = whole;
    for (auto edits = 1 + random() % 3; edits > 0; --edits)
      bytes[random() % (8 + two_tensors.size())] =
          static_cast<char>(random() % 2 ? random() : 0x30 + random() % 10);
    auto found = parse(bytes);
    if (!found)
      continue;
    ++sound;
    std::size_t sum = 0;
    for (const auto& one : *found)
      sum += one.bytes.size();
    CHECK(sum == 32);
  }
  CHECK(sound > 100);
  CHECK(sound < 20'000);
}

TEST_CASE("shards are found by their index, also through symbolic links") {
  model_directory files;
  auto tensor = [](char name) {
    return safetensors_file(std::string{"{\""} + name +
                                R"(":{"dtype":"U8","shape":[1],)"
                                R"("data_offsets":[0,1]}})",
                            "x");
  };
  auto index = [&](std::string_view map) {
    files.write("model.safetensors.index.json",
                "{\"metadata\":{\"total_size\":2},\"weight_map\":" +
                    std::string{map} + "}");
  };
  auto refused = [&](const std::string& words, errc code = errc::corrupt) {
    auto set = safetensors_set::open(files.path());
    REQUIRE(!set);
    CHECK_THAT(set.error().message, Catch::Contains(words));
    CHECK(set.error().code == code);
  };
  refused("no model.safetensors and no", errc::not_found);
  files.write("blobs-1", tensor('a'));
  files.link("one.safetensors", "blobs-1");
  index(R"({"a":"one.safetensors","b":"two.safetensors"})");
  refused("two.safetensors", errc::not_found);
  files.write("two.safetensors", tensor('b'));
  auto set = safetensors_set::open(files.path());
  REQUIRE(set.has_value());
  CHECK(set->tensors().size() == 2);
  CHECK(set->find("b")->bytes.size() == 1);
  CHECK(!set->find("c"));
  CHECK(!set->changed());
  auto hash = set->content_hash(2);
  CHECK(hash == safetensors_set::open(files.path())->content_hash(1));

  index(R"({"a":"../one.safetensors"})");
  refused("not one beside the index");
  index(R"({"a":"/etc/passwd"})");
  refused("not one beside the index");
  index(R"({"a":"..safetensors/x"})");
  refused("not one beside the index");
  index(R"({"a":1})");
  refused("not one beside the index");
  index(R"({"a":"one.safetensors","a":"two.safetensors"})");
  refused("there twice");
  index("[]");
  refused("no weight_map");
  index(R"({"a":"one.safetensors","c":"two.safetensors"})");
  refused("holds tensor 'b'");
  index(R"({"a":"one.safetensors","b":"two.safetensors",)"
        R"("c":"two.safetensors"})");
  refused("tensor 'c' is missing");
  files.write("three.safetensors", tensor('a'));
  index(R"({"a":"one.safetensors","b":"two.safetensors",)"
        R"("d":"three.safetensors"})");
  refused("holds tensor 'a'");
  files.write("model.safetensors.index.json", std::string((5 << 20) + 1, ' '));
  refused("larger than", errc::limit);
}

TEST_CASE("a whole file wins over an index, and a change is seen") {
  model_directory files;
  files.write("model.safetensors.index.json", "{}");
  files.write("model.safetensors", safetensors_file("{}", ""));
  auto set = safetensors_set::open(files.path());
  REQUIRE(set.has_value());
  CHECK(set->tensors().empty());
  files.write("model.safetensors", safetensors_file("{} ", ""));
  CHECK(set->changed());
}
