#include "kernel_fixture.hpp"

#include "engine/ops/cpu/half.hpp"

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
  constexpr const char* names[] = {"f32",  "f16",  "bf16",
                                   "q8_0", "q4_0", "q4_1"};
  return names[static_cast<int>(type)];
}

namespace {

template <class T>
void append(std::vector<std::byte>& to, const T& value) {
  const auto* from = reinterpret_cast<const std::byte*>(&value);
  to.insert(to.end(), from, from + sizeof value);
}

void append_float(matrix& m, random_numbers& random) {
  const float x = random.value() * 0.2f;
  if (m.type == element_type::f32) {
    append(m.bytes, x);
    m.values.push_back(x);
  } else if (m.type == element_type::f16) {
    const auto half = cpu::to_f16(x);
    append(m.bytes, half);
    m.values.push_back(cpu::from_f16(half));
  } else {
    const auto half =
        static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16);
    append(m.bytes, half);
    m.values.push_back(cpu::from_bf16(half));
  }
}

void append_block(matrix& m, random_numbers& random) {
  const auto scale = cpu::to_f16(random.value() * 0.02f);
  const auto minimum = cpu::to_f16(random.value() * 0.1f);
  const double d = cpu::from_f16(scale);
  append(m.bytes, scale);
  if (m.type == element_type::q4_1)
    append(m.bytes, minimum);
  if (m.type == element_type::q8_0) {
    for (int i = 0; i < 32; ++i) {
      const auto q = static_cast<std::int8_t>(random.below(256) - 128);
      append(m.bytes, q);
      m.values.push_back(d * q);
    }
    return;
  }
  const int offset = m.type == element_type::q4_0 ? 8 : 0;
  const double base = m.type == element_type::q4_1 ? cpu::from_f16(minimum) : 0;
  std::uint8_t packed[16];
  for (auto& byte : packed) {
    byte = static_cast<std::uint8_t>(random.below(256));
    append(m.bytes, byte);
  }
  for (const auto byte : packed)
    m.values.push_back(d * ((byte & 15) - offset) + base);
  for (const auto byte : packed)
    m.values.push_back(d * ((byte >> 4) - offset) + base);
}

} // namespace

matrix random_matrix(element_type type, std::int64_t rows, std::int64_t cols,
                     random_numbers& random) {
  matrix m{type, rows, cols, {}, {}};
  const auto block = layout_of(type).elements;
  for (std::int64_t i = 0; i < rows * cols / block; ++i)
    if (block == 1)
      append_float(m, random);
    else
      append_block(m, random);
  return m;
}

std::vector<named_backend> backends(int threads) {
  using cpu::instruction_set;
  constexpr std::pair<instruction_set, const char*> sets[] = {
      {instruction_set::plain, "plain"},
      {instruction_set::avx2, "avx2"},
      {instruction_set::avx512, "avx512"}};
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
