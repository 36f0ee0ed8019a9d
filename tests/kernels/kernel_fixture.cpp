#include "kernel_fixture.hpp"

#include "engine/ops/cpu/half.hpp"
#include "tests/kernels/ggml_blocks.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <iostream>
#include <limits>

namespace troupe::ops::test {

std::uint32_t random_numbers::bits() {
  state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
  const auto x = state_ ^ (state_ >> 29);
  return static_cast<std::uint32_t>((x * 0x9e3779b97f4a7c15ull) >> 32);
}

float random_numbers::value() {
  return static_cast<float>(static_cast<std::int32_t>(bits())) * 0x1p-31f;
}

int random_numbers::below(int n) {
  return static_cast<int>(bits() % static_cast<unsigned>(n));
}

std::vector<float> random_numbers::values(std::int64_t n, float scale) {
  std::vector<float> out(n);
  for (auto& x : out)
    x = value() * scale;
  return out;
}

const char* name_of(element_type type) {
  constexpr const char* names[] = {"f32",  "f16",  "bf16", "q8_0",   "q4_0",
                                   "q4_1", "q5_0", "q5_1", "iq4_nl", "q4_k",
                                   "q5_k", "q6_k", "q3_k", "q2_k"};
  return names[static_cast<int>(type)];
}

std::int64_t whole_blocks(element_type type, std::int64_t cols) {
  const auto block = layout_of(type).elements;
  return (cols + block - 1) / block * block;
}

namespace {

/// Where a block has its f16 scale and, if it has one, its f16 minimum.
std::vector<int> halves_of(element_type type) {
  switch (type) {
  case element_type::q4_1:
  case element_type::q5_1:
  case element_type::q4_k:
  case element_type::q5_k:
    return {0, 2};
  case element_type::q6_k:
    return {208};
  case element_type::q3_k:
    return {108};
  case element_type::q2_k:
    return {80, 82};
  default:
    return {0};
  }
}

void write_half(std::vector<std::byte>& block, int at, float value) {
  const auto half = cpu::to_f16(value);
  std::memcpy(block.data() + at, &half, sizeof half);
}

/// Random bits, with a scale of up to 0.02 (of up to 0.02 / 32 where small
/// integers multiply it) and a minimum of up to five times that.
std::vector<std::byte> random_quantised_block(element_type type,
                                              random_numbers& random) {
  std::vector<std::byte> block(layout_of(type).bytes);
  for (auto& byte : block)
    byte = static_cast<std::byte>(random.below(256));
  float largest = layout_of(type).elements == 32 ? 0.02f : 0.02f / 32;
  for (const int at : halves_of(type)) {
    write_half(block, at, random.value() * largest);
    largest *= 5;
  }
  return block;
}

/// All bytes `byte`, scales and minimums 1.
std::vector<std::byte> filled_block(element_type type, std::uint8_t byte) {
  std::vector<std::byte> block(layout_of(type).bytes, std::byte{byte});
  for (const int at : halves_of(type))
    write_half(block, at, 1);
  return block;
}

std::vector<std::byte> random_float(element_type type, random_numbers& random) {
  std::vector<std::byte> out(layout_of(type).bytes);
  const float x = random.value() * 0.2f;
  if (type == element_type::f16)
    write_half(out, 0, x);
  else // bf16 is the upper half of f32
    std::memcpy(out.data(),
                reinterpret_cast<const std::byte*>(&x) + 4 - out.size(),
                out.size());
  return out;
}

/// `next_block` makes one block after the other.
template <class F>
matrix matrix_of(element_type type, std::int64_t rows, std::int64_t cols,
                 F next_block) {
  matrix m{type, rows, cols, {}, {}};
  for (std::int64_t i = 0; i < rows * cols / layout_of(type).elements; ++i) {
    const auto block = next_block();
    m.bytes.insert(m.bytes.end(), block.begin(), block.end());
    append_block(type, block.data(), m.values);
  }
  return m;
}

} // namespace

matrix random_matrix(element_type type, std::int64_t rows, std::int64_t cols,
                     random_numbers& random) {
  return matrix_of(type, rows, cols, [&] {
    return quantised(type) ? random_quantised_block(type, random)
                           : random_float(type, random);
  });
}

matrix filled_matrix(element_type type, std::int64_t rows, std::int64_t cols,
                     std::uint8_t byte) {
  return matrix_of(type, rows, cols, [&] { return filled_block(type, byte); });
}

std::vector<named_backend> backends(int threads) {
  using cpu::instruction_set;
  constexpr std::pair<instruction_set, const char*> sets[] = {
      {instruction_set::plain, "plain"},
      {instruction_set::avx2, "avx2"},
      {instruction_set::avx512, "avx512"},
      {instruction_set::amx, "amx"}};
  std::vector<named_backend> out;
  for (const auto& [isa, name] : sets)
    if (cpu::machine_has(isa))
      out.push_back({name, cpu::make_backend({threads, isa}).value()});
    else
      std::cerr << "skipped: this machine lacks " << name << '\n';
  return out;
}

std::unique_ptr<backend> plain_backend(int threads) {
  return cpu::make_backend({threads, cpu::instruction_set::plain}).value();
}

std::unique_ptr<backend> best_backend(int threads) {
  return cpu::make_backend({threads, {}}).value();
}

std::vector<float> apply(backend& ops, const weight& w,
                         const std::vector<float>& x, std::int64_t rows) {
  auto y = poisoned(rows * w.rows());
  ops.linear(w, x.data(), rows, y.data(), false);
  return y;
}

std::vector<float> poisoned(std::int64_t n) {
  return std::vector<float>(n, std::numeric_limits<float>::quiet_NaN());
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size())
    return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i]))
      continue;
    if (std::bit_cast<std::uint32_t>(a[i]) !=
        std::bit_cast<std::uint32_t>(b[i]))
      return false;
  }
  return true;
}

} // namespace troupe::ops::test
