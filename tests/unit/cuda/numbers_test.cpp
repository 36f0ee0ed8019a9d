#include "cuda/kernels/numbers.hpp"
#include "cuda/step_lists.hpp"
#include "cuda/stored_weight.hpp"
#include "engine/ops/cpu/half.hpp"

#include <catch2/catch.hpp>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

using namespace troupe;
using namespace troupe::cuda;

namespace {

bool same(float a, float b) {
  return std::isnan(a) ? std::isnan(b) : bits_of(a) == bits_of(b);
}

} // namespace

TEST_CASE("stored numbers are what the CPU takes them for") {
  for (unsigned i = 0; i < 0x10000; ++i) {
    auto bits = static_cast<std::uint16_t>(i);
    REQUIRE(same(to_float(f16{bits}), ops::cpu::from_f16(bits)));
    REQUIRE(same(to_float(bf16{bits}), ops::cpu::from_bf16(bits)));
  }
}

TEST_CASE("numbers are rounded to f16 as on the CPU") {
  auto check = [](std::uint32_t bits) {
    auto value = float_of_bits(bits);
    auto expected = ops::cpu::to_f16(value);
    auto got = to_f16(value).bits;
    if (std::isnan(value))
      return std::isnan(ops::cpu::from_f16(got));
    return got == expected;
  };
  // All signs and exponents with all that is near a tie.
  for (std::uint32_t high = 0; high < 0x200; ++high)
    for (std::uint32_t middle = 0; middle < 0x400; ++middle)
      for (std::uint32_t low : {0u, 1u, 0xfffu, 0x1000u, 0x1001u, 0x1fffu})
        REQUIRE(check(high << 23 | middle << 13 | low));
}

TEST_CASE("weights keep a type that all parts have, and become bf16 else") {
  using ops::element_type;
  const std::vector<float> floats{1, 2, 3, 4, 0.1f, -5, 6, 1e-3f};
  auto bytes = std::as_bytes(std::span{floats});
  ops::matrix_view f32{element_type::f32, 2, 4, bytes};
  std::vector<std::uint16_t> halves;
  for (auto x : floats)
    halves.push_back(ops::cpu::to_f16(x));
  ops::matrix_view half{element_type::f16, 2, 4,
                        std::as_bytes(std::span{halves})};

  auto kept = make_dense(std::vector{f32, f32});
  REQUIRE(kept.has_value());
  CHECK(kept->type == element_type::f32);
  CHECK(kept->rows == 4);
  CHECK(kept->cols == 4);
  CHECK(std::memcmp(kept->bytes.data() + bytes.size(), bytes.data(),
                    bytes.size()) == 0);

  auto mixed = make_dense(std::vector{f32, half});
  REQUIRE(mixed.has_value());
  CHECK(mixed->type == element_type::bf16);
  for (int i = 0; i < 16; ++i) {
    bf16 stored;
    std::memcpy(&stored, mixed->bytes.data() + 2 * i, 2);
    auto value = i < 8 ? floats[i] : ops::cpu::from_f16(halves[i - 8]);
    CHECK(std::abs(to_float(stored) - value) <= std::abs(value) / 256);
  }
  CHECK(!make_dense(
             std::vector{f32, ops::matrix_view{element_type::f32, 4, 2, bytes}})
             .has_value());
}

TEST_CASE("a step's lists are packed with where each sequence ends, and lie "
          "where their numbers say") {
  const std::vector<std::int32_t> ids{11, 12, 13, 14, -1}, logit_rows{2, 4};
  const std::vector<std::int32_t> positions{4, 5, 6, 0, 9};
  const std::vector<std::int32_t> sequences{1, 1, 1, 0, 2};
  const std::vector<std::int32_t> one{7}, two{3, 4}, three{5, 6, 8};
  const std::vector<std::span<const std::int32_t>> tables{one, two, three};
  ops::step_input in{ids, {positions, sequences, tables}, logit_rows};
  const auto at = places_of(in);
  std::vector<std::int32_t> n(at.end, 1);
  pack_step(in, n);
  for (std::size_t r = 0; r < 5; ++r) {
    CHECK(n[r] == ids[r]);
    CHECK(n[at.positions + r] == positions[r]);
    CHECK(n[at.sequences + r] == sequences[r]);
    CHECK(n[at.last + r] == std::vector{6, 6, 6, 0, 9}[r]);
  }
  CHECK(n[at.logit_rows] == 2);
  CHECK(n[at.logit_rows + 1] == 4);
  CHECK(n[at.tables + n[at.table_begins + 0]] == 7);
  CHECK(n[at.tables + n[at.table_begins + 1] + 1] == 4);
  CHECK(n[at.tables + n[at.table_begins + 2] + 2] == 8);
  // Longer tables move nothing else.
  const std::vector<std::span<const std::int32_t>> longer{three, two, three};
  in.batch.tables = longer;
  CHECK(places_of(in).tables == at.tables);
  CHECK(places_of(in).end == at.end + 2);
}
