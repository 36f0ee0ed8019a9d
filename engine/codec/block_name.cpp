#include "engine/codec/block_name.hpp"

#include <cstddef>

namespace troupe::codec {

namespace {

// Odd, with bits all over: digits of pi.
constexpr std::uint64_t factor = 0x243f6a8885a308d3u;
constexpr std::uint64_t offset = 0x13198a2e03707344u;

std::uint64_t fold(std::uint64_t one, std::uint64_t other) {
  __extension__ using wide = unsigned __int128;
  auto product = static_cast<wide>(one) * other;
  return static_cast<std::uint64_t>(product) ^
         static_cast<std::uint64_t>(product >> 64);
}

std::uint64_t bits(std::int32_t token) {
  return static_cast<std::uint32_t>(token);
}

} // namespace

block_name chain_name(block_name before, std::span<const std::int32_t> tokens) {
  auto state = before ^ offset;
  std::size_t i = 0;
  for (; i + 1 < tokens.size(); i += 2)
    state =
        fold(state ^ (bits(tokens[i]) | bits(tokens[i + 1]) << 32), factor) +
        offset;
  if (i < tokens.size())
    state = fold(state ^ bits(tokens[i]), factor) + offset;
  auto name = fold(state ^ tokens.size(), factor);
  return name == root_name ? offset : name;
}

std::vector<block_name> block_names(std::span<const std::int32_t> prompt,
                                    std::uint32_t block_size) {
  std::vector<block_name> out;
  if (prompt.empty() || block_size == 0)
    return out;
  auto count = (prompt.size() - 1) / block_size;
  out.reserve(count);
  auto name = root_name;
  for (std::size_t i = 0; i < count; ++i) {
    name = chain_name(name, prompt.subspan(i * block_size, block_size));
    out.push_back(name);
  }
  return out;
}

} // namespace troupe::codec
