#include "engine/sampling/philox.hpp"

namespace troupe::sampling {

namespace {

constexpr std::uint64_t multiplier_0 = 0xD2511F53;
constexpr std::uint64_t multiplier_1 = 0xCD9E8D57;
constexpr std::uint32_t key_step_0 = 0x9E3779B9; // golden ratio
constexpr std::uint32_t key_step_1 = 0xBB67AE85; // sqrt(3) - 1
constexpr int rounds = 10;

std::uint32_t high(std::uint64_t product) {
  return static_cast<std::uint32_t>(product >> 32);
}

std::uint32_t low(std::uint64_t product) {
  return static_cast<std::uint32_t>(product);
}

} // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t p0 = multiplier_0 * counter[0];
    const std::uint64_t p1 = multiplier_1 * counter[2];
    counter = {high(p1) ^ counter[1] ^ key[0], low(p1),
               high(p0) ^ counter[3] ^ key[1], low(p0)};
    key[0] += key_step_0;
    key[1] += key_step_1;
  }
  return counter;
}

double uniform(std::uint64_t seed, std::uint32_t choice,
               std::uint32_t position) {
  const auto word = philox4x32({position, choice, 0, 0},
                               {static_cast<std::uint32_t>(seed),
                                static_cast<std::uint32_t>(seed >> 32)});
  const std::uint64_t bits = (std::uint64_t{word[0]} << 32 | word[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

} // namespace troupe::sampling
