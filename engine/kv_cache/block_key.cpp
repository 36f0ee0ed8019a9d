#include "engine/kv_cache/block_key.hpp"

#include <bit>
#include <random>

namespace troupe::kv_cache {

namespace {

/// Up to 8 bytes, the first one lowest.
std::uint64_t word_of(std::span<const std::byte> bytes) {
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    word |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  return word;
}

/// SipHash, fed word by word.
class siphash_state {
public:
  explicit siphash_state(const hash_secret& secret)
      : v0_(secret[0] ^ 0x736f6d6570736575ull),
        v1_(secret[1] ^ 0x646f72616e646f6dull ^ 0xee),
        v2_(secret[0] ^ 0x6c7967656e657261ull),
        v3_(secret[1] ^ 0x7465646279746573ull) {
  }

  void add(std::uint64_t word) {
    v3_ ^= word;
    mix(2);
    v0_ ^= word;
  }

  /// `rest` holds the up to 7 bytes after the last whole word.
  block_key finish(std::uint64_t bytes, std::span<const std::byte> rest) {
    const std::uint64_t last = bytes << 56 | word_of(rest);
    add(last);
    block_key key;
    v2_ ^= 0xee;
    mix(4);
    key.low = v0_ ^ v1_ ^ v2_ ^ v3_;
    v1_ ^= 0xdd;
    mix(4);
    key.high = v0_ ^ v1_ ^ v2_ ^ v3_;
    return key;
  }

private:
  void mix(int rounds) {
    for (int round = 0; round < rounds; ++round) {
      v0_ += v1_;
      v1_ = std::rotl(v1_, 13) ^ v0_;
      v0_ = std::rotl(v0_, 32);
      v2_ += v3_;
      v3_ = std::rotl(v3_, 16) ^ v2_;
      v0_ += v3_;
      v3_ = std::rotl(v3_, 21) ^ v0_;
      v2_ += v1_;
      v1_ = std::rotl(v1_, 17) ^ v2_;
      v2_ = std::rotl(v2_, 32);
    }
  }

  std::uint64_t v0_, v1_, v2_, v3_;
};

} // namespace

hash_secret random_secret() {
  std::random_device source;
  hash_secret secret;
  for (std::uint64_t& word : secret)
    word = std::uint64_t{source()} << 32 | source();
  return secret;
}

block_key siphash(const hash_secret& secret, std::span<const std::byte> bytes) {
  siphash_state state{secret};
  auto rest = bytes;
  for (; rest.size() >= 8; rest = rest.subspan(8))
    state.add(word_of(rest.first(8)));
  return state.finish(bytes.size(), rest);
}

block_key chain(const hash_secret& secret, const block_key& before,
                std::span<const token_id> tokens, std::uint64_t outputs) {
  auto bits = [&](std::size_t i) {
    const token_id token = i < tokens.size() ? tokens[i] : -1;
    return std::uint64_t{static_cast<std::uint32_t>(token)};
  };
  siphash_state state{secret};
  state.add(before.low);
  state.add(before.high);
  for (std::size_t i = 0; i < tokens.size(); i += 2)
    state.add(bits(i) | bits(i + 1) << 32);
  if (outputs > 0)
    state.add(outputs);
  return state.finish(16 + 4 * tokens.size() + (outputs > 0 ? 8 : 0), {});
}

} // namespace troupe::kv_cache
