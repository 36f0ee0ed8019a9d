#include "engine/weights/gguf.hpp"

#include "tests/unit/weights/gguf_builder.hpp"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <random>
#include <sys/stat.h>
#include <unistd.h>

using namespace troupe;
using namespace troupe::test;
using weights::gguf_file;

namespace {

/// A small file with a value of most types and two tensors.
gguf_builder sample() {
  gguf_builder out;
  out.string("general.architecture", "llama");
  out.u32("llama.block_count", 2);
  out.f32("llama.rope.freq_base", 10000.0f);
  out.boolean("tokenizer.ggml.add_bos_token", true);
  out.strings("tokenizer.ggml.tokens", {"a", "", "a much longer token"});
  out.i32s("tokenizer.ggml.token_type", {1, 3, -4});
  out.set("small", gguf_i8, std::string(1, '\xfe'));
  out.set("wide", gguf_f64, byte_writer{}.put(0.5).bytes());
  out.f32_tensor("matrix", {4, 3});
  out.tensors.push_back(
      {"quantised", {32, 2}, gguf_tensor_q8_0, std::string(68, '\1'), {}});
  return out;
}

result<std::unique_ptr<gguf_file>> parse(const std::string& bytes) {
  return gguf_file::parse(as_bytes(bytes), "sample.gguf");
}

/// Parses and expects an error of `code` that says `words`.
void refused(const std::string& bytes, errc code, const std::string& words) {
  auto file = parse(bytes);
  REQUIRE(!file);
  CHECK(file.error().message.rfind("sample.gguf: ", 0) == 0);
  CHECK_THAT(file.error().message, Catch::Contains(words));
  CHECK(file.error().code == code);
}

void refused(const gguf_builder& builder, const std::string& words) {
  refused(builder.build(), errc::corrupt, words);
}

template <class T>
T value(const gguf_file& file, std::string_view key) {
  auto* found = file.find(key);
  REQUIRE(found);
  REQUIRE(std::holds_alternative<T>(*found));
  return std::get<T>(*found);
}

/// Reads all that a parsed file offers, as a consumer would.
std::uint64_t touch(const gguf_file& file) {
  std::uint64_t sum = 0;
  for (const auto& tensor : file.tensors()) {
    auto matrix = tensor.matrix();
    auto layout = ops::layout_of(matrix.type);
    CHECK(matrix.rows * (matrix.cols / layout.elements) * layout.bytes ==
          static_cast<std::int64_t>(matrix.bytes.size()));
    for (auto byte : matrix.bytes)
      sum += static_cast<std::uint64_t>(byte);
  }
  return sum;
}

/// A file in a directory of its own that goes away with this object.
class temporary_file {
public:
  explicit temporary_file(const std::string& bytes) {
    char name[] = "/tmp/troupe-gguf-XXXXXX";
    REQUIRE(::mkdtemp(name));
    directory_ = name;
    std::ofstream(path(), std::ios::binary) << bytes;
  }

  ~temporary_file() {
    std::filesystem::remove_all(directory_);
  }

  std::filesystem::path path() const {
    return directory_ / "sample.gguf";
  }

private:
  std::filesystem::path directory_;
};

} // namespace

TEST_CASE("a GGUF file gives its metadata, widened, and its tensors") {
  auto bytes = sample().build();
  auto file = parse(bytes);
  REQUIRE(file.has_value());
  const auto& gguf = **file;
  CHECK(gguf.name() == "sample.gguf");
  CHECK(value<std::string>(gguf, "general.architecture") == "llama");
  CHECK(value<std::uint64_t>(gguf, "llama.block_count") == 2);
  CHECK(value<double>(gguf, "llama.rope.freq_base") == 10000.0);
  CHECK(value<bool>(gguf, "tokenizer.ggml.add_bos_token"));
  CHECK(value<std::int64_t>(gguf, "small") == -2);
  CHECK(value<double>(gguf, "wide") == 0.5);
  CHECK(value<std::vector<std::string>>(gguf, "tokenizer.ggml.tokens") ==
        std::vector<std::string>{"a", "", "a much longer token"});
  CHECK(value<std::vector<std::int64_t>>(gguf, "tokenizer.ggml.token_type") ==
        std::vector<std::int64_t>{1, 3, -4});
  CHECK(gguf.find("missing") == nullptr);
  REQUIRE(gguf.tensors().size() == 2);
  auto* quantised = gguf.find_tensor("quantised");
  REQUIRE(quantised);
  CHECK(quantised->type == ops::element_type::q8_0);
  CHECK(quantised->matrix().rows == 2);
  CHECK(quantised->matrix().cols == 32);
  CHECK(quantised->bytes.size() == 68);
  CHECK(touch(gguf) == 68);
  CHECK(gguf.find_tensor("missing") == nullptr);
}

TEST_CASE("version 2 is read, version 1, later ones and big-endian are not") {
  auto file = sample();
  file.version = 2;
  CHECK(parse(file.build()).has_value());
  for (std::uint32_t version : {0u, 1u, 4u, 0x03000000u}) {
    file.version = version;
    refused(file.build(), errc::unsupported, "not supported");
  }
}

TEST_CASE("wrong magic is refused") {
  auto file = sample();
  file.magic = 0x47475546;
  refused(file.build(), errc::unsupported, "magic");
  refused("PK\3\4 this is a zip file, not a model", errc::unsupported, "magic");
}

TEST_CASE("counts that the file cannot hold are refused") {
  for (std::uint64_t count :
       {std::uint64_t{0xffffffff}, ~std::uint64_t{0}, std::uint64_t{1} << 63}) {
    auto file = sample();
    file.tensor_count = count;
    refused(file, "do not fit");
    file = sample();
    file.entry_count = count;
    refused(file, "do not fit");
  }
}

TEST_CASE("a count of one too many or too few is refused") {
  auto file = sample();
  file.entry_count = 9;
  CHECK(!parse(file.build()));
  file.entry_count = 7;
  CHECK(!parse(file.build()));
  file = sample();
  file.tensor_count = 3;
  CHECK(!parse(file.build()));
}

TEST_CASE("keys and strings longer than the file are refused") {
  for (std::uint64_t size :
       {std::uint64_t{1} << 63, ~std::uint64_t{0}, std::uint64_t{5000}}) {
    byte_writer key;
    key.put(0x46554747u).put(3u).put(std::uint64_t{0}).put(std::uint64_t{1});
    key.put(size).raw("key and some bytes that follow it");
    refused(key.bytes(), errc::corrupt, "longer than the file");
    auto file = sample();
    file.set("text", gguf_string, byte_writer{}.put(size).raw("x").bytes());
    refused(file, "longer than the file");
  }
}

TEST_CASE("names are bounded, not empty and printable") {
  auto file = sample();
  file.u32(std::string(65536, 'k'), 1);
  refused(file, "longer than 65535");
  for (const char* name : {"", "a b", "line\nbreak", "\x1b[31m", "\xff"}) {
    file = sample();
    file.u32(name, 1);
    refused(file, "unprintable");
    file = sample();
    file.f32_tensor(name, {1});
    refused(file, "unprintable");
  }
  file = sample();
  file.f32_tensor(std::string(65, 't'), {1});
  refused(file, "longer than 64");
}

TEST_CASE("arrays of arrays are refused at the first level, however deep") {
  byte_writer nested;
  for (int depth = 0; depth < 100'000; ++depth)
    nested.put(std::uint32_t{gguf_array}).put(std::uint64_t{1});
  auto file = sample();
  file.set("deep", gguf_array, nested.bytes());
  refused(file.build(), errc::unsupported, "arrays of arrays");
}

TEST_CASE("unknown value types and impossible values are refused") {
  auto file = sample();
  file.set("odd", 13, "1234");
  refused(file, "unknown type 13");
  file = sample();
  file.set("odd", gguf_bool, "\2");
  refused(file, "boolean");
  file = sample();
  file.set("odd", gguf_array,
           byte_writer{}.put(99u).put(std::uint64_t{1}).bytes());
  refused(file, "unknown type 99");
  file = sample();
  file.set("odd", gguf_array,
           byte_writer{}
               .put(std::uint32_t{gguf_u64})
               .put(std::uint64_t{1})
               .put(~std::uint64_t{0})
               .bytes());
  refused(file, "2^63");
}

TEST_CASE("arrays that the file cannot hold are refused") {
  for (std::uint32_t type : {gguf_u8, gguf_bool, gguf_string, gguf_f64})
    for (std::uint64_t count : {std::uint64_t{100'000}, ~std::uint64_t{0}}) {
      auto file = sample();
      file.set("many", gguf_array,
               byte_writer{}.put(type).put(count).raw("few").bytes());
      refused(file, "do not fit");
    }
}

TEST_CASE("what is allocated beyond the file's size is bounded") {
  // Empty strings cost 8 bytes in the file and several times that in memory.
  auto count = std::uint64_t{1'300'000};
  byte_writer many;
  many.put(std::uint32_t{gguf_string}).put(count);
  auto file = sample();
  file.set("many", gguf_array, many.bytes() + std::string(count * 8, '\0'));
  refused(file.build(), errc::limit, "too large");
}

TEST_CASE("a key or tensor that is there twice is refused") {
  auto file = sample();
  file.twice("llama.block_count", gguf_u32, byte_writer{}.put(3u).bytes());
  refused(file, "'llama.block_count' is there twice");
  file = sample();
  file.f32_tensor("matrix", {2});
  refused(file, "'matrix' is there twice");
}

TEST_CASE("alignment is a power of two and an unsigned number") {
  for (std::uint32_t alignment : {0u, 1u, 4u, 13u, 48u, 1u << 30, ~0u}) {
    auto file = sample();
    file.u32("general.alignment", alignment);
    refused(file, "alignment");
  }
  auto file = sample();
  file.f32("general.alignment", 32);
  refused(file, "not an unsigned number");
  file.string("general.alignment", "32");
  refused(file, "not an unsigned number");
  file.u32("general.alignment", 256);
  file.alignment = 256;
  CHECK(parse(file.build()).has_value());
}

TEST_CASE("shapes are checked") {
  auto with_shape = [](std::vector<std::uint64_t> shape) {
    auto file = sample();
    file.tensor("matrix").shape = std::move(shape);
    return file;
  };
  refused(with_shape({}), "0 dimensions");
  refused(with_shape({1, 1, 1, 1, 1}), "5 dimensions");
  refused(with_shape({4, 0}), "zero or too large");
  refused(with_shape({0}), "zero or too large");
  refused(with_shape({~std::uint64_t{0}}), "zero or too large");
  refused(with_shape({std::uint64_t{1} << 32, std::uint64_t{1} << 32}),
          "zero or too large");
  refused(with_shape({3, std::uint64_t{1} << 62}), "zero or too large");
  // The elements fit 63 bits, the bytes do not.
  refused(with_shape({std::uint64_t{1} << 62}), "past the end");
  refused(with_shape({4, 5}), "overlap");
  auto file = sample();
  file.tensor("quantised").shape = {16, 4};
  refused(file, "whole blocks");
}

TEST_CASE("tensor types are known or refused by name") {
  auto file = sample();
  file.tensor("matrix").type = 16;
  refused(file.build(), errc::unsupported, "IQ2_XXS is not supported yet");
  for (std::uint32_t type : {4u, 40u, 0xffffffffu}) {
    file.tensor("matrix").type = type;
    refused(file, "unknown type");
  }
}

TEST_CASE("formats with super-blocks have rows of whole super-blocks") {
  // Number, bytes of 256 elements.
  constexpr std::pair<std::uint32_t, std::size_t> formats[] = {
      {10, 84}, {11, 110}, {12, 144}, {13, 176}, {14, 210}};
  for (auto [type, bytes] : formats) {
    gguf_builder file;
    file.tensors.push_back(
        {"matrix", {512, 3}, type, std::string(6 * bytes, '\1'), {}});
    auto whole = file.build();
    auto parsed = parse(whole);
    REQUIRE(parsed.has_value());
    CHECK((*parsed)->tensors()[0].bytes.size() == 6 * bytes);
    file.tensor("matrix").shape = {384, 4};
    refused(file, "rows of 384 elements are not whole blocks of 256");
    whole.pop_back();
    refused(whole, errc::corrupt, "past the end");
  }
}

TEST_CASE("tensor data lies inside the file, aligned and apart") {
  auto with_offset = [](std::uint64_t offset) {
    auto file = sample();
    file.tensor("quantised").offset = offset;
    return file;
  };
  refused(with_offset(~std::uint64_t{0} - 31), "past the end");
  refused(with_offset(std::uint64_t{1} << 63), "past the end");
  refused(with_offset(96), "past the end");
  refused(with_offset(65), "not aligned");
  refused(with_offset(32), "overlap");
  refused(with_offset(0), "overlap");
  CHECK(parse(with_offset(64).build()).has_value());
}

TEST_CASE("every truncation of a file is an error") {
  auto bytes = sample().build();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    // A copy of its own, so that a sanitizer sees a read past the end.
    auto whole = as_bytes(bytes);
    std::vector<std::byte> cut(whole.begin(), whole.begin() + size);
    CHECK(!gguf_file::parse(cut, "cut.gguf"));
  }
  CHECK(parse(bytes).has_value());
}

TEST_CASE("no mutation of a file does harm") {
  const auto seed = std::uint64_t{20'261'122};
  INFO("seed " << seed);
  std::mt19937_64 random{seed};
  const auto whole = sample().build();
  std::size_t taken = 0;
  for (int round = 0; round < 20'000; ++round) {
    auto bytes = whole;
    for (auto edits = 1 + random() % 3; edits > 0; --edits) {
      auto at = random() % bytes.size();
      constexpr std::uint64_t nasty[] = {
          0, 1, 0x7f, 0xff, ~std::uint64_t{0}, std::uint64_t{1} << 63};
      auto value = random() % 2 ? random() : nasty[random() % 6];
      auto width = std::min<std::size_t>(std::size_t{1} << random() % 4,
                                         bytes.size() - at);
      std::memcpy(bytes.data() + at, &value, width);
    }
    if (random() % 8 == 0)
      bytes.resize(random() % bytes.size());
    INFO("round " << round);
    auto file = parse(bytes);
    if (!file)
      continue;
    ++taken;
    touch(**file);
  }
  // Some edits only change values, so both ways out must have been taken.
  CHECK(taken > 100);
  CHECK(taken < 19'900);
}

TEST_CASE("a file is opened, mapped and noticed when it changes") {
  temporary_file temporary{sample().build()};
  auto file = gguf_file::open(temporary.path());
  REQUIRE(file.has_value());
  CHECK((*file)->tensors().size() == 2);
  CHECK(touch(**file) == 68);
  CHECK(!(*file)->changed());
  std::ofstream(temporary.path(), std::ios::app) << "more";
  CHECK((*file)->changed());
}

TEST_CASE("what is not a regular file is refused without waiting") {
  temporary_file temporary{""};
  CHECK(gguf_file::open(temporary.path()).error().code == errc::corrupt);
  auto fifo = temporary.path().parent_path() / "fifo.gguf";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  CHECK_THAT(gguf_file::open(fifo).error().message,
             Catch::Contains("not a regular file"));
  CHECK_THAT(gguf_file::open("/dev/zero").error().message,
             Catch::Contains("not a regular file"));
  CHECK_THAT(gguf_file::open(temporary.path().parent_path()).error().message,
             Catch::Contains("not a regular file"));
  CHECK(gguf_file::open(temporary.path().parent_path() / "none.gguf")
            .error()
            .code == errc::not_found);
}

TEST_CASE("the content hash sees every bit and not the number of threads") {
  auto file = sample();
  file.f32_tensor("large", {1'000'000});
  auto bytes = file.build();
  auto hash = (*parse(bytes))->content_hash(1);
  CHECK(hash.size() == 64);
  for (int threads : {-1, 0, 2, 5, 1000})
    CHECK((*parse(bytes))->content_hash(threads) == hash);
  for (auto at : {bytes.size() - 1, bytes.size() / 2, bytes.size() - 3000000}) {
    auto flipped = bytes;
    flipped[at] ^= 1;
    CHECK((*parse(flipped))->content_hash(2) != hash);
  }
}

TEST_CASE("the content hash is the documented tree of SHA-256 digests") {
  // Made with Python: sha256(u64 size + sha256(first MiB) + sha256(rest)) of
  // the file "GGUF", version 3, no tensors, one u8 array of 2^20 sevens.
  gguf_builder file;
  file.set("a", gguf_array,
           byte_writer{}
               .put(std::uint32_t{gguf_u8})
               .put(std::uint64_t{1 << 20})
               .raw(std::string(1 << 20, '\7'))
               .bytes());
  auto bytes = file.build();
  CHECK((*parse(bytes))->content_hash(2) ==
        "d8c26f83d3b3bc3b0a508d239aefbc59828dc86753e6d32ec7adf5f10c14804e");
}
