#include "engine/ops/cpu/matrix_unit.hpp"

#include "engine/ops/cpu/bf16_tile.hpp"
#include "engine/ops/cpu/kernels.hpp"

#include <cstring>
#include <vector>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace troupe::ops::cpu {

namespace {

#if defined(__x86_64__) && defined(__linux__)
bool has_unit() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0)
    return false;
  constexpr unsigned bf16 = 1u << 22, tiles = 1u << 24, int8 = 1u << 25;
  if ((d & (bf16 | tiles | int8)) != (bf16 | tiles | int8))
    return false;
  constexpr unsigned vectors_round = 1u << 5; // AVX-512 BF16
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 &&
         (a & vectors_round) != 0;
}

/// Its registers are large, so Linux wants to be asked for them.
bool is_allowed() {
  constexpr long ask = 0x1023; // ARCH_REQ_XCOMP_PERM
  constexpr long tile_data = 18;
  return syscall(SYS_arch_prctl, ask, tile_data) == 0;
}
#else
bool has_unit() {
  return false;
}
bool is_allowed() {
  return false;
}
#endif

/// Numbers of any sign and of sizes between 2^-31 and 2^32.
float number(std::uint32_t& state) {
  state = state * 1664525u + 1013904223u;
  const std::uint32_t bits = (state & 0x807fffffu) | (96 + (state >> 23) % 64)
                                                         << 23;
  float out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}

/// A product of 16 rows, 16 outputs and so many blocks, by a table's kernels.
std::vector<float> product_by(const kernel_table& kernels) {
  constexpr int blocks = 8, columns = blocks * block_columns;
  std::uint32_t state = 1;
  std::vector<float> x(group_rows * columns);
  for (auto& one : x)
    one = number(state);
  std::vector<std::byte> rounded(x.size() * sizeof(float) + rounded_slack);
  kernels.round(x.data(), group_rows, columns, rounded.data());
  std::vector<std::byte> tile(blocks * bf16_block_bytes);
  for (std::size_t at = 0; at < tile.size(); at += 2) {
    const float w = number(state);
    std::memcpy(&tile[at], reinterpret_cast<const std::byte*>(&w) + 2, 2);
  }
  std::vector<float> y(group_rows * tile_lanes);
  kernels.bf16(tile.data(), 1, {rounded.data(), group_rows, blocks},
               {y.data(), tile_lanes, tile_lanes, false});
  return y;
}

/// Attention of five queries over 48 positions and dimensions, whose blocks of
/// columns are of 32 and of 16.
std::vector<float> attention_by(const kernel_table& kernels) {
  constexpr int queries = 5, dims = 48, positions = 48;
  std::uint32_t state = 2;
  std::vector<float> q(queries * dims), kept(2 * positions * dims);
  for (auto* numbers : {&q, &kept})
    for (auto& one : *numbers) {
      state = state * 1664525u + 1013904223u;
      one = static_cast<float>(state) * 0x1p-31f - 1;
    }
  std::vector<std::byte> rounded(group_rows * 2 * block_columns * 4 +
                                 rounded_slack);
  kernels.round(q.data(), queries, dims, rounded.data());
  std::vector<std::uint16_t> halves(kept.size());
  kernels.to_bf16(kept.data(), static_cast<std::int64_t>(kept.size()),
                  halves.data());
  std::vector<float> out(queries * (partial_header + dims));
  attention_span a{};
  a.rounded = rounded.data();
  a.count = queries;
  a.head_dim = dims;
  a.scale = 1;
  for (int g = 0; g < positions / 16; ++g) {
    a.keys[g] = halves.data() + g * 16 * dims;
    a.values[g] = a.keys[g] + positions * dims;
  }
  for (int r = 0; r < queries; ++r) {
    a.visible[r] = positions - r;
    a.partial[r] = out.data() + r * (partial_header + dims);
  }
  kernels.attend_rounded(a);
  return out;
}

bool computes_as_written() {
  const auto same = [](const auto& ours, const auto& its) {
    return std::memcmp(ours.data(), its.data(), ours.size() * sizeof(float)) ==
           0;
  };
  return same(product_by(avx512_kernels()), product_by(amx_kernels())) &&
         same(attention_by(avx512_kernels()), attention_by(amx_kernels()));
}

} // namespace

bool matrix_unit_as_written() {
  static const bool answer =
      has_unit() && is_allowed() && computes_as_written();
  return answer;
}

} // namespace troupe::ops::cpu
