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
  CHECK(siphash(published_secret, {}, {}) ==
        block_key{0xe6a825ba047f81a3ull, 0x930255c71472f66dull});
  const std::byte zero{0};
  CHECK(siphash(published_secret, {}, {&zero, 1}) ==
        block_key{0x44af996bd8c187daull, 0x45fc229b11597634ull});
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
