#include "engine/weights/quantise.hpp"

#include "engine/ops/cpu/half.hpp"
#include "engine/weights/converted_checkpoint.hpp"
#include "engine/weights/gguf.hpp"
#include "engine/weights/text_file.hpp"
#include "tests/unit/weights/gguf_builder.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

using namespace troupe;
using namespace troupe::test;
using ops::element_type;

namespace {

/// The parts of fixtures/quantised.bin (make_quantised_fixture.py).
class quantised_fixture {
public:
  quantised_fixture() {
    auto path = std::filesystem::path{TROUPE_SOURCE_DIR} /
                "tests/reference/fixtures/quantised.bin";
    bytes_ = weights::read_text_file(path, 1 << 20).value();
    std::uint32_t count = 0;
    std::memcpy(&count, take(sizeof count).data(), sizeof count);
    values.resize(count);
    std::memcpy(values.data(), take(count * sizeof(float)).data(),
                count * sizeof(float));
  }

  std::vector<float> values;

  std::string take(std::size_t bytes) {
    REQUIRE(bytes <= bytes_.size() - at_);
    at_ += bytes;
    return bytes_.substr(at_ - bytes, bytes);
  }

private:
  std::string bytes_;
  std::size_t at_ = 0;
};

std::size_t size_in(element_type type, std::size_t values) {
  auto layout = ops::layout_of(type);
  return values / layout.elements * layout.bytes;
}

std::string narrowed(const std::vector<float>& values, element_type type) {
  std::string out(size_in(type, values.size()), '\0');
  auto done =
      weights::narrow(values, type, std::as_writable_bytes(std::span{out}));
  REQUIRE(done.has_value());
  return out;
}

float half_at(const std::string& bytes, std::size_t at) {
  std::uint16_t half = 0;
  std::memcpy(&half, bytes.data() + at, sizeof half);
  return ops::cpu::from_f16(half);
}

} // namespace

TEST_CASE("quantised blocks have the bits of the gguf package") {
  quantised_fixture fixture;
  for (auto type : {element_type::q8_0, element_type::q4_0, element_type::bf16,
                    element_type::f16}) {
    INFO(static_cast<int>(type));
    auto expected = fixture.take(size_in(type, fixture.values.size()));
    CHECK(narrowed(fixture.values, type) == expected);
  }
}

TEST_CASE("quantising errs by no more than it says") {
  quantised_fixture fixture;
  auto eight = narrowed(fixture.values, element_type::q8_0);
  auto four = narrowed(fixture.values, element_type::q4_0);
  for (std::size_t i = 0; i < fixture.values.size(); ++i) {
    auto block = i / 32;
    float largest = 0;
    for (std::size_t k = 0; k < 32; ++k)
      largest = std::max(largest, std::abs(fixture.values[block * 32 + k]));
    if (largest < 8e-3f)
      continue; // the scale is below F16's normal numbers
    auto place = i % 32;
    auto q8 = half_at(eight, block * 34) *
              static_cast<std::int8_t>(eight[block * 34 + 2 + place]);
    auto byte = static_cast<unsigned char>(four[block * 18 + 2 + place % 16]);
    auto q4 =
        half_at(four, block * 18) * ((place < 16 ? byte & 15 : byte >> 4) - 8);
    CHECK(std::abs(q8 - fixture.values[i]) <= largest * (1 / 254.0f + 6e-4f));
    CHECK(std::abs(q4 - fixture.values[i]) <= largest * (1 / 8.0f + 6e-4f));
  }
}

TEST_CASE("floats of every type widen to what they are") {
  quantised_fixture fixture;
  for (auto type : {element_type::f32, element_type::f16, element_type::bf16}) {
    auto bytes = narrowed(fixture.values, type);
    auto wide = weights::widen(type, as_bytes(bytes));
    CHECK(narrowed(wide, type) == bytes);
  }
}

TEST_CASE("values that a type cannot hold are refused") {
  for (auto type : {element_type::f16, element_type::bf16, element_type::q8_0,
                    element_type::q4_0})
    for (auto value : {NAN, INFINITY, std::numeric_limits<float>::max()}) {
      std::vector<float> values(32, value);
      std::vector<std::byte> out(size_in(type, 32));
      auto done = weights::narrow(values, type, out);
      REQUIRE(!done);
      CHECK(done.error().code == errc::corrupt);
    }
}

TEST_CASE("a checkpoint shows its matrices of floats in another form") {
  gguf_builder builder;
  builder.string("general.architecture", "llama");
  builder.f32_tensor("token_embd.weight", {64, 3});
  builder.f32_tensor("blk.0.attn_q.weight", {32, 2});
  builder.f32_tensor("blk.0.odd.weight", {16, 2});
  builder.f32_tensor("blk.0.ffn_gate_inp.weight", {32, 2});
  builder.f32_tensor("output_norm.weight", {32});
  builder.tensors.push_back({"blk.0.small.weight",
                             {32, 2},
                             gguf_tensor_q4_0,
                             std::string(36, '\1'),
                             {}});
  auto bytes = builder.build();
  auto open = [&] {
    return weights::gguf_file::parse(as_bytes(bytes), "m.gguf").value();
  };
  auto shown = weights::convert_matrices(open(), weights::matrix_form::q4_0);
  auto type = [&](const char* name) { return shown->find_tensor(name)->type; };
  CHECK(type("token_embd.weight") == element_type::q8_0);
  CHECK(type("blk.0.attn_q.weight") == element_type::q4_0);
  CHECK(type("blk.0.odd.weight") == element_type::f32);
  CHECK(type("blk.0.ffn_gate_inp.weight") == element_type::f32);
  CHECK(type("output_norm.weight") == element_type::f32);
  CHECK(type("blk.0.small.weight") == element_type::q4_0);
  CHECK(shown->find("general.architecture"));
  CHECK(!shown->changed());
  for (const auto& one : shown->tensors()) {
    auto data = shown->read(one);
    REQUIRE(data.has_value());
    CHECK(data->bytes().size() == one.byte_size());
  }
  auto half = weights::convert_matrices(open(), weights::matrix_form::f16);
  CHECK(half->find_tensor("blk.0.odd.weight")->type == element_type::f16);
  CHECK(half->find_tensor("blk.0.small.weight")->type == element_type::q4_0);
  CHECK(half->content_hash(1) != shown->content_hash(1));
  auto wide = weights::convert_matrices(open(), weights::matrix_form::f32);
  for (const auto& one : wide->tensors()) {
    const auto stored = open()->find_tensor(one.name)->type;
    INFO(one.name);
    const bool brain = stored == element_type::bf16 && one.shape.size() > 1;
    CHECK(one.type == (brain ? element_type::f32 : stored));
    CHECK(wide->read(one).value().bytes().size() == one.byte_size());
  }
  auto marked = weights::convert_matrices(open(), weights::matrix_form::e4m3);
  for (const auto& one : marked->tensors()) {
    INFO(one.name);
    const auto wanted =
        one.name == "blk.0.attn_q.weight" || one.name == "blk.0.odd.weight";
    CHECK(one.as_e4m3 == wanted);
    CHECK(one.matrix().as_e4m3 == wanted);
    CHECK(one.type == open()->find_tensor(one.name)->type);
  }
  CHECK(marked->content_hash(1) != half->content_hash(1));
  auto same =
      weights::convert_matrices(open(), weights::matrix_form::as_stored);
  CHECK(same->content_hash(1) == open()->content_hash(1));
}

TEST_CASE("pieces of any size are converted alike") {
  std::vector<float> values(32 * 1500);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = std::sin(static_cast<float>(i));
  auto bytes = narrowed(values, element_type::f32);
  std::string out(size_in(element_type::q8_0, values.size()), '\0');
  auto done =
      weights::convert(element_type::f32, as_bytes(bytes), element_type::q8_0,
                       std::as_writable_bytes(std::span{out}));
  REQUIRE(done.has_value());
  CHECK(out == narrowed(values, element_type::q8_0));
}
