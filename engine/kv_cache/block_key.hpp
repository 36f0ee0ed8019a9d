#pragma once

#include "engine/sampling/sampling_params.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace troupe::kv_cache {

/// Names the content of a full block: its tokens and all tokens before it.
struct block_key {
  std::uint64_t low = 0;
  std::uint64_t high = 0;

  bool operator==(const block_key&) const = default;
};

/// The key before the first block.
inline constexpr block_key root_key{};

/// A random key of this process. With it nobody outside can make two prompts
/// whose blocks get the same name.
using hash_secret = std::array<std::uint64_t, 2>;

/// Reads the system's random source.
hash_secret random_secret();

/// SipHash-2-4 with 128 bits of output (Aumasson, Bernstein, 2012). Two
/// different inputs share a name with a chance of 2^-128.
block_key siphash(const hash_secret& secret, std::span<const std::byte> bytes);

/// The key of a block from the key of the block before it. Tokens are an even
/// number or end with a padding word that no token has. `outputs`: so many of
/// them at the end are output, where that changes what the block holds.
block_key chain(const hash_secret& secret, const block_key& before,
                std::span<const token_id> tokens, std::uint64_t outputs = 0);

struct block_key_hash {
  std::size_t operator()(const block_key& key) const {
    return key.low;
  }
};

} // namespace troupe::kv_cache
