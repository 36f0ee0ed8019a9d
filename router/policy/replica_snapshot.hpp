#pragma once

#include "engine/codec/block_name.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

// What the policies decide on. They are pure, and each gives the place of a
// replica among those that it is shown.

namespace troupe::router {

/// What a router knows, by itself, of a replica that could take a choice.
struct replica_snapshot {
  std::uint32_t choices = 0; ///< sent to it and not ended
  /// Work that those still ask for: prompt tokens until the first token came,
  /// and the output that is to be expected.
  std::uint64_t tokens = 0;
  std::uint32_t choices_max = 0; ///< 0 = no bound
  std::uint64_t incarnation = 0; ///< the process
  std::uint64_t name_hash = 0;   ///< of its name, which outlives the process
  double slowness = 1;           ///< times as long for a token as the fastest

  bool has_room() const {
    return choices_max == 0 || choices < choices_max;
  }

  /// The work there once it has so many tokens more, as the fastest replica
  /// would count it.
  double load_with(double more) const {
    return (static_cast<double>(tokens) + more) * slowness;
  }
};

/// What is asked of a replica.
struct choice_wish {
  std::uint64_t tokens = 0;  ///< to compute, and to be expected as output
  std::uint64_t session = 0; ///< hash of the client's session id; 0 = none
  /// Of the prompt (codec::block_names), if the policy looks at them.
  std::span<const codec::block_name> blocks = {};
  std::uint32_t block_size = 0;

  /// Of those blocks.
  double prompt_tokens() const {
    return static_cast<double>(blocks.size()) * block_size;
  }
};

/// A bijection that leaves no bit alone (the finalizer of SplitMix64: Steele,
/// Lea and Flood, 2014).
constexpr std::uint64_t mixed(std::uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

/// The same everywhere, for ever (FNV-1a, mixed); never 0.
constexpr std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (char c : text)
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  hash = mixed(hash);
  return hash == 0 ? 1 : hash;
}

} // namespace troupe::router
