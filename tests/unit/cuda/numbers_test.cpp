#include "cuda/kernels/matrix_words.hpp"
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

namespace {

/// What the words of columns k to k + 7 mean, of a row of whole words read at
/// once.
template <class Stored>
std::vector<double> meaning(const std::vector<Stored>& row, std::int64_t k) {
  stored_eight<Stored> stored;
  if (row.size() % 8 == 0)
    stored.read_whole(row.data() + k);
  else
    stored.read(row.data() + k, static_cast<std::int64_t>(row.size()) - k);
  const matrix_words<Stored> words{stored};
  std::vector<double> out;
  const auto add = [&](std::size_t at, std::uint32_t bits) {
    out[at] += to_float(bf16{static_cast<std::uint16_t>(bits)});
  };
  for (std::size_t i = 0; i < 4; ++i) {
    out.resize(out.size() + 2);
    add(2 * i, words.high[i]);
    add(2 * i + 1, words.high[i] >> 16);
    if constexpr (matrix_words<Stored>::is_split) {
      add(2 * i, words.low[i]);
      add(2 * i + 1, words.low[i] >> 16);
    }
  }
  return out;
}

/// All finite numbers of a type whose codes are those below `codes`.
template <class Stored>
void check_words_are_exact(int codes, int not_finite_from, int sign) {
  std::vector<Stored> row;
  for (int code = 0; code < codes; ++code)
    if (code % sign < not_finite_from)
      row.push_back({static_cast<decltype(Stored::bits)>(code)});
  for (const bool whole : {true, false}) { // read at once or one by one
    if (!whole)
      row.resize(row.size() / 8 * 8 - 3);
    for (std::size_t k = 0; k < row.size(); k += 8) {
      const auto meant = meaning(row, static_cast<std::int64_t>(k));
      for (std::size_t i = 0; i < 8; ++i) {
        const double x = k + i < row.size() ? to_float(row[k + i]) : 0.0f;
        REQUIRE(meant[i] == x);
      }
    }
  }
}

} // namespace

TEST_CASE("numbers of a weight are exact as words of bf16; floats lose 2^-17") {
  check_words_are_exact<bf16>(0x10000, 0x7f80, 0x8000);
  check_words_are_exact<f16>(0x10000, 0x7c00, 0x8000);
  check_words_are_exact<e4m3>(0x100, 0x78, 0x80); // whole words of eight
  check_words_are_exact<e4m3>(0x100, 0x7f, 0x80);
  std::vector<float> row;
  for (int i = 0; i < 4096; ++i)
    row.push_back(
        std::ldexp(1 + static_cast<float>(i * 2654435761u % 8191) / 8192,
                   i % 60 - 30) *
        (i % 2 ? -1.f : 1.f));
  for (std::size_t k = 0; k < row.size(); k += 8) {
    const auto meant = meaning(row, static_cast<std::int64_t>(k));
    for (std::size_t i = 0; i < 8; ++i)
      REQUIRE(std::abs(meant[i] - row[k + i]) <=
              std::abs(row[k + i]) * 0x1p-17);
  }
}
