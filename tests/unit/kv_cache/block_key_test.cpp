#include "engine/kv_cache/block_key.hpp"

#include <catch2/catch.hpp>

#include <vector>

using namespace troupe;
using namespace troupe::kv_cache;

namespace {

// The key of the published vectors: bytes 0 to 15.
constexpr hash_secret published_secret{0x0706050403020100ull,
                                       0x0f0e0d0c0b0a0908ull};

} // namespace

TEST_CASE("siphash gives the published vectors") {
  CHECK(siphash(published_secret, {}) ==
        block_key{0xe6a825ba047f81a3ull, 0x930255c71472f66dull});
  const std::byte zero{0};
  CHECK(siphash(published_secret, {&zero, 1}) ==
        block_key{0x44af996bd8c187daull, 0x45fc229b11597634ull});
}

TEST_CASE("siphash tells texts of every length apart, byte by byte") {
  std::vector<std::byte> text(40, std::byte{7});
  for (std::size_t size = 0; size <= text.size(); ++size) {
    const auto prefix = std::span<const std::byte>{text}.first(size);
    const block_key whole = siphash(published_secret, prefix);
    for (std::size_t at = 0; at < size; ++at) {
      text[at] = std::byte{8};
      CHECK_FALSE(siphash(published_secret, prefix) == whole);
      text[at] = std::byte{7};
    }
  }
}

TEST_CASE("a chain of whole words hashes as its bytes do") {
  // Key before, then tokens: little endian, as siphash reads bytes.
  const std::vector<token_id> tokens{1, -2, 3, 4};
  const std::uint64_t words[] = {5, 6, 1 | 0xfffffffeull << 32, 3 | 4ull << 32};
  CHECK(chain(published_secret, {5, 6}, tokens) ==
        siphash(published_secret, std::as_bytes(std::span{words})));
}

TEST_CASE("a key depends on the secret, the tokens and all blocks before") {
  const hash_secret secret{1, 2};
  const std::vector<token_id> a{1, 2, 3, 4};
  const std::vector<token_id> b{1, 2, 3, 5};
  const block_key first = chain(secret, root_key, a);
  CHECK(first == chain(secret, root_key, a));
  CHECK_FALSE(first == chain(secret, root_key, b));
  CHECK_FALSE(first == chain({1, 3}, root_key, a));
  CHECK_FALSE(chain(secret, first, a) == chain(secret, root_key, a));
  CHECK_FALSE(chain(secret, first, b) ==
              chain(secret, chain(secret, root_key, b), b));
}

TEST_CASE("blocks of an odd number of tokens have keys of their own") {
  const hash_secret secret{1, 2};
  const std::vector<token_id> three{1, 2, 3};
  const std::vector<token_id> four{1, 2, 3, 0};
  CHECK_FALSE(chain(secret, root_key, three) == chain(secret, root_key, four));
}

TEST_CASE("every process has another secret") {
  CHECK(random_secret() != random_secret());
}
