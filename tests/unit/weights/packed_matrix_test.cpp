#include "engine/weights/packed_matrix.hpp"

#include "engine/ops/cpu/half.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <random>

using namespace troupe;
using namespace troupe::weights;
using ops::cpu::from_f16;
using ops::cpu::to_f16;

namespace {

/// A tensor with bytes of its own.
struct owned_tensor {
  std::vector<std::byte> bytes;
  stored_tensor tensor;

  template <class T>
  owned_tensor(std::string name, stored_type type,
               std::vector<std::int64_t> shape, const std::vector<T>& values) {
    auto from = std::as_bytes(std::span{values});
    bytes.assign(from.begin(), from.end());
    tensor = {std::move(name), type, std::move(shape), bytes};
  }
};

std::vector<std::uint16_t> halves(const std::vector<float>& values) {
  std::vector<std::uint16_t> out;
  for (auto value : values)
    out.push_back(to_f16(value));
  return out;
}

std::vector<std::byte> written(const made_tensor& made) {
  std::vector<std::byte> out(made.out.byte_size());
  REQUIRE(made.write(out).has_value());
  return out;
}

template <class T>
void refused(const result<T>& got, errc code, const std::string& words) {
  REQUIRE(!got);
  CHECK_THAT(got.error().message, Catch::Contains(words));
  CHECK(got.error().code == code);
}

float half_at(const std::vector<std::byte>& bytes, std::size_t at) {
  std::uint16_t half = 0;
  std::memcpy(&half, bytes.data() + at, sizeof half);
  return from_f16(half);
}

/// A GPTQ matrix of 64 inputs in groups of 32 and 8 outputs, of random bits.
struct gptq_matrix {
  std::vector<std::uint32_t> words = std::vector<std::uint32_t>(8 * 8);
  std::vector<std::uint32_t> zeros = std::vector<std::uint32_t>(2);
  std::vector<float> scales = std::vector<float>(2 * 8);
  std::vector<std::int32_t> groups = std::vector<std::int32_t>(64);

  gptq_matrix() {
    std::mt19937 random{5};
    for (auto& word : words)
      word = random();
    for (auto& word : zeros)
      word = random();
    for (auto& scale : scales)
      scale = from_f16(to_f16(0.001f * static_cast<float>(random() % 1000)));
    for (int i = 0; i < 64; ++i)
      groups[i] = i / 32;
  }

  result<std::vector<std::byte>> convert(std::int64_t scale_rows = 2) const {
    owned_tensor w{"w", stored_type::i32, {8, 8}, words};
    owned_tensor z{"z", stored_type::i32, {2, 1}, zeros};
    owned_tensor s{
        "s", stored_type::f16, {scale_rows, 16 / scale_rows}, halves(scales)};
    owned_tensor g{"g", stored_type::i32, {64}, groups};
    auto made = int4_matrix({&w.tensor, &z.tensor, &s.tensor, &g.tensor},
                            int4_packing::gptq);
    if (!made)
      return made.error();
    CHECK(made->out.type == ops::element_type::q4_1);
    CHECK(made->out.shape == std::vector<std::int64_t>{64, 8});
    std::vector<std::byte> out(made->out.byte_size());
    if (auto done = made->write(out); !done)
      return done.error();
    return out;
  }
};

} // namespace

TEST_CASE("four-bit weights err by no more than scale / 128") {
  gptq_matrix matrix;
  auto bytes = matrix.convert();
  REQUIRE(bytes.has_value());
  for (std::size_t o = 0; o < 8; ++o)
    for (std::size_t i = 0; i < 64; ++i) {
      auto group = i / 32;
      auto q = matrix.words[i / 8 * 8 + o] >> 4 * (i % 8) & 15;
      auto z = (matrix.zeros[group] >> 4 * o & 15) + 1;
      auto s = matrix.scales[group * 8 + o];
      auto expected = s * (static_cast<float>(q) - static_cast<float>(z));
      auto block = (o * 2 + group) * 20;
      auto place = i % 32;
      auto byte = static_cast<int>((*bytes)[block + 4 + place % 16]);
      auto value = half_at(*bytes, block) *
                       static_cast<float>(place < 16 ? byte & 15 : byte >> 4) +
                   half_at(*bytes, block + 2);
      CHECK(std::abs(value - expected) <= s / 128);
    }
}

TEST_CASE("packed matrices that are not plain are refused") {
  gptq_matrix matrix;
  matrix.groups[3] = 1;
  refused(matrix.convert(), errc::unsupported, "desc_act");
  matrix = {};
  matrix.groups[3] = -1;
  refused(matrix.convert(), errc::unsupported, "desc_act");
  matrix = {};
  matrix.scales[3] = INFINITY;
  refused(matrix.convert(), errc::corrupt, "scale");
  matrix.scales[3] = 50000;
  matrix.zeros[0] = 0xffffffff;
  refused(matrix.convert(), errc::corrupt, "too large");
  refused(gptq_matrix{}.convert(1), errc::corrupt, "a scale per group");
  owned_tensor words{
      "w", stored_type::i32, {8, 8}, std::vector<std::int32_t>(64)};
  owned_tensor scales{
      "s", stored_type::f16, {4, 8}, halves(std::vector<float>(32, 1.0f))};
  owned_tensor zeros{
      "z", stored_type::i32, {4, 1}, std::vector<std::int32_t>(4)};
  refused(int4_matrix({&words.tensor, &zeros.tensor, &scales.tensor, nullptr},
                      int4_packing::gptq),
          errc::unsupported, "groups of 16 inputs");
  refused(int4_matrix({&scales.tensor, &zeros.tensor, &scales.tensor, nullptr},
                      int4_packing::awq),
          errc::corrupt, "not an I32 matrix");
}

TEST_CASE("eight-bit weights keep their integers") {
  std::vector<std::int8_t> values(2 * 32);
  for (int i = 0; i < 64; ++i)
    values[i] = static_cast<std::int8_t>(i * 4 - 128);
  owned_tensor weights{"w", stored_type::i8, {2, 32}, values};
  owned_tensor scales{
      "s", stored_type::f32, {2, 1}, std::vector<float>{0.5f, 0.25f}};
  auto made = int8_matrix(weights.tensor, scales.tensor);
  REQUIRE(made.has_value());
  auto bytes = written(*made);
  CHECK(half_at(bytes, 0) == 0.5f);
  CHECK(half_at(bytes, 34) == 0.25f);
  CHECK(std::memcmp(bytes.data() + 2, values.data(), 32) == 0);
  CHECK(std::memcmp(bytes.data() + 36, values.data() + 32, 32) == 0);
  owned_tensor one{"s", stored_type::f32, {}, std::vector<float>{1e-3f}};
  CHECK(int8_matrix(weights.tensor, one.tensor).has_value());
  owned_tensor three{"s", stored_type::f32, {3}, std::vector<float>(3)};
  refused(int8_matrix(weights.tensor, three.tensor), errc::unsupported,
          "neither one scale nor one per output");
  owned_tensor narrow{
      "w", stored_type::i8, {2, 16}, std::vector<std::int8_t>(32)};
  refused(int8_matrix(narrow.tensor, one.tensor), errc::unsupported,
          "rows of 16 inputs");
  owned_tensor huge{"s", stored_type::f32, {1}, std::vector<float>{1e9f}};
  auto late = int8_matrix(weights.tensor, huge.tensor);
  REQUIRE(late.has_value());
  std::vector<std::byte> out(late->out.byte_size());
  refused(late->write(out), errc::corrupt, "too large");
}

TEST_CASE("eight-bit floats are value times scale") {
  std::vector<std::uint8_t> values{0x00, 0x38, 0xb8, 0x7e, 0x01, 0x40};
  owned_tensor weights{"w", stored_type::f8_e4m3, {2, 3}, values};
  owned_tensor scales{
      "s", stored_type::f32, {2}, std::vector<float>{1.0f, 0.5f}};
  auto made = fp8_matrix(weights.tensor, scales.tensor, 0);
  REQUIRE(made.has_value());
  CHECK(made->out.shape == std::vector<std::int64_t>{3, 2});
  auto bytes = written(*made);
  const float expected[] = {0, 1, -1, 224, 0x1p-10f, 1};
  for (std::size_t i = 0; i < 6; ++i)
    CHECK(half_at(bytes, 2 * i) == expected[i]);
  owned_tensor squares{
      "s", stored_type::f32, {1, 2}, std::vector<float>{1.0f, 2.0f}};
  auto blocks = fp8_matrix(weights.tensor, squares.tensor, 2);
  REQUIRE(blocks.has_value());
  CHECK(half_at(written(*blocks), 2 * 2) == -2.0f);
  CHECK(half_at(written(*blocks), 2 * 1) == 1.0f);
  refused(fp8_matrix(weights.tensor, squares.tensor, 1), errc::corrupt,
          "a scale per block");
  values[5] = 0x7f;
  owned_tensor broken{"w", stored_type::f8_e4m3, {2, 3}, values};
  auto late = fp8_matrix(broken.tensor, scales.tensor, 0);
  REQUIRE(late.has_value());
  std::vector<std::byte> out(late->out.byte_size());
  refused(late->write(out), errc::corrupt, "not finite");
}

TEST_CASE("eight-bit floats can stay where they are, beside their scales") {
  const std::vector<std::uint8_t> values{0x00, 0x38, 0xb8, 0x7e, 0x01, 0x40};
  owned_tensor weights{"w", stored_type::f8_e4m3, {2, 3}, values};
  owned_tensor one{"s", stored_type::f32, {}, std::vector<float>{0.3f}};
  auto made = e4m3_matrix(weights.tensor, one.tensor, 0);
  REQUIRE(made.has_value());
  CHECK(made->out.type == ops::element_type::e4m3);
  CHECK(made->out.shape == std::vector<std::int64_t>{3, 2});
  CHECK(made->out.bytes.data() == weights.tensor.bytes.data());
  CHECK(made->out.byte_size() == 6);
  CHECK(!made->write);
  CHECK(made->scales().value() == std::vector<float>{0.3f, 0.3f});
  owned_tensor each{
      "s", stored_type::f32, {2, 1}, std::vector<float>{0.5f, 2.0f}};
  auto other = e4m3_matrix(weights.tensor, each.tensor, 0);
  REQUIRE(other.has_value());
  CHECK(other->scales().value() == std::vector<float>{0.5f, 2.0f});

  auto both = stack({*made, *other});
  REQUIRE(both.has_value());
  CHECK(both->out.shape == std::vector<std::int64_t>{3, 2, 2});
  CHECK(both->scales().value() == std::vector<float>{0.3f, 0.3f, 0.5f, 2.0f});
  const auto bytes = written(*both);
  CHECK(std::memcmp(bytes.data(), values.data(), 6) == 0);
  CHECK(std::memcmp(bytes.data() + 6, values.data(), 6) == 0);

  owned_tensor squares{"s", stored_type::f32, {1, 2}, std::vector<float>{1, 2}};
  refused(e4m3_matrix(weights.tensor, squares.tensor, 0), errc::unsupported,
          "neither one scale nor one per output");
  refused(e4m3_matrix(one.tensor, one.tensor, 0), errc::corrupt,
          "not an F8_E4M3 matrix");
}

TEST_CASE("eight-bit floats in blocks have a scale of each row and block") {
  owned_tensor weights{"w",
                       stored_type::f8_e4m3,
                       {130, 257},
                       std::vector<std::uint8_t>(130 * 257, 0x38)};
  owned_tensor squares{
      "s", stored_type::f32, {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6}};
  auto made = e4m3_matrix(weights.tensor, squares.tensor, 128);
  REQUIRE(made.has_value());
  CHECK(made->out.row_scales == 3);
  const auto scales = made->scales().value();
  REQUIRE(scales.size() == 130 * 3);
  for (std::size_t row : {0, 127, 128, 129})
    for (std::size_t block = 0; block < 3; ++block)
      CHECK(scales[row * 3 + block] ==
            static_cast<float>(row / 128 * 3 + block + 1));
  CHECK(stack({*made, *made})->scales()->size() == 2 * 130 * 3);
  owned_tensor one{"s", stored_type::f32, {1}, std::vector<float>{1}};
  refused(e4m3_matrix(weights.tensor, one.tensor, 128), errc::corrupt,
          "a scale per block");
  refused(stack({*made, *e4m3_matrix(weights.tensor, one.tensor, 0)}),
          errc::corrupt, "differ in type or shape");
}

TEST_CASE("scales of eight-bit floats that are no numbers, or too large for "
          "them, are refused by the name of the scales") {
  owned_tensor weights{
      "w", stored_type::f8_e4m3, {1, 256}, std::vector<std::uint8_t>(256)};
  // 448 times that is the largest bf16, or above it.
  constexpr float largest = 0x1.fep127f / 448, above = 0x1.fcp127f / 440;
  for (auto make : {fp8_matrix, e4m3_matrix})
    for (std::int64_t block : {0, 128}) {
      const auto made = [&](float scale) {
        const std::int64_t count = block == 0 ? 1 : 2;
        std::vector<float> values(static_cast<std::size_t>(count), 1.0f);
        values.back() = scale;
        owned_tensor scales{"s", stored_type::f32, {1, count}, values};
        return make(weights.tensor, scales.tensor, block);
      };
      CHECK(made(largest).has_value());
      CHECK(made(-largest).has_value());
      for (auto scale : {NAN, INFINITY, -INFINITY, above, -above})
        refused(made(scale), errc::corrupt,
                "tensor 's' has a scale that is not finite or too large");
    }
}

TEST_CASE("an eight-bit float that is not a number is refused by the name of "
          "its own part of a stack, wherever it is") {
  constexpr std::size_t count = 20; // two and a half times eight
  std::vector<std::uint8_t> codes(count, 0x7e);
  std::fill_n(codes.begin() + 3, count / 2, std::uint8_t{0xfe});
  owned_tensor one{"s", stored_type::f32, {1}, std::vector<float>{1}};
  owned_tensor right{"right", stored_type::f8_e4m3, {2, count / 2}, codes};
  const auto whole = *e4m3_matrix(right.tensor, one.tensor, 0);
  CHECK(stack({whole, whole})->scales().has_value());
  for (std::size_t at = 0; at < count; ++at)
    for (auto code : {std::uint8_t{0x7f}, std::uint8_t{0xff}}) {
      auto with = codes;
      with[at] = code;
      owned_tensor wrong{"wrong", stored_type::f8_e4m3, {2, count / 2}, with};
      const auto broken = *e4m3_matrix(wrong.tensor, one.tensor, 0);
      for (const auto& made : {broken, *stack({whole, broken})})
        refused(made.scales(), errc::corrupt,
                "tensor 'wrong' has an element that is not a number");
    }
}

TEST_CASE("matrices are stacked in their order") {
  owned_tensor a{"a", stored_type::f32, {1, 2}, std::vector<float>{1, 2}};
  owned_tensor b{"b", stored_type::f32, {1, 2}, std::vector<float>{3, 4}};
  owned_tensor c{"c", stored_type::f32, {2, 1}, std::vector<float>{3, 4}};
  auto both = stack({*stored_matrix(a.tensor), *stored_matrix(b.tensor)});
  REQUIRE(both.has_value());
  CHECK(both->out.shape == std::vector<std::int64_t>{2, 1, 2});
  auto bytes = written(*both);
  float values[4];
  std::memcpy(values, bytes.data(), sizeof values);
  CHECK(std::equal(values, values + 4, std::begin({1.0f, 2.0f, 3.0f, 4.0f})));
  refused(stack({*stored_matrix(a.tensor), *stored_matrix(c.tensor)}),
          errc::corrupt, "differ in type or shape");
}
