#include "engine/kv_cache/block_pool.hpp"

#include <catch2/catch.hpp>

#include <set>

using namespace troupe;
using namespace troupe::kv_cache;

namespace {

block_key key(std::uint64_t n) {
  return {n, n};
}

} // namespace

TEST_CASE("every block is given once") {
  block_pool pool{5};
  std::set<block_id> given;
  while (pool.free() > 0)
    given.insert(pool.take());
  CHECK(given == std::set<block_id>{0, 1, 2, 3, 4});
}

TEST_CASE("a released block without a key is unused again") {
  block_pool pool{1};
  const block_id block = pool.take();
  CHECK(pool.free() == 0);
  pool.release(block);
  CHECK(pool.free() == 1);
  CHECK(pool.cached() == 0);
}

TEST_CASE("a known prefix is found up to its first gap") {
  block_pool pool{4};
  for (std::uint64_t n : {1, 2, 4})
    pool.publish(pool.take(), key(n));
  const std::vector<block_key> chain{key(1), key(2), key(3), key(4)};
  CHECK(pool.find(chain).blocks == 2);
  CHECK(pool.find({}).blocks == 0);
}

TEST_CASE("a shared block is free when its last holder lets go") {
  block_pool pool{2};
  const block_id block = pool.take();
  pool.publish(block, key(1));
  std::vector<block_id> held;
  const std::vector<block_key> chain{key(1)};
  CHECK(pool.find(chain).idle == 0);
  pool.hold(chain, 1, held);
  CHECK(held == std::vector<block_id>{block});
  pool.release(block);
  CHECK(pool.free() == 1);
  pool.release(block);
  CHECK(pool.free() == 2);
  CHECK(pool.find(chain).idle == 1);
}

TEST_CASE("holding an idle block takes it out of the free ones") {
  block_pool pool{1};
  const block_id block = pool.take();
  pool.publish(block, key(1));
  pool.release(block);
  REQUIRE(pool.free() == 1);
  std::vector<block_id> held;
  const std::vector<block_key> chain{key(1)};
  pool.hold(chain, 1, held);
  CHECK(pool.free() == 0);
}

TEST_CASE("unused blocks go out before known ones") {
  block_pool pool{3};
  const block_id known = pool.take();
  pool.publish(known, key(1));
  pool.release(known);
  CHECK(pool.take() != known);
  CHECK(pool.take() != known);
  CHECK(pool.take() == known);
}

TEST_CASE("the least recently used block goes out first and is forgotten") {
  block_pool pool{3};
  std::vector<block_id> blocks;
  for (std::uint64_t n : {1, 2, 3}) {
    blocks.push_back(pool.take());
    pool.publish(blocks.back(), key(n));
  }
  for (block_id block : {blocks[1], blocks[0], blocks[2]})
    pool.release(block);
  // Using 2 again makes it the youngest.
  std::vector<block_id> held;
  const std::vector<block_key> second{key(2)};
  pool.hold(second, 1, held);
  pool.release(held[0]);
  CHECK(pool.take() == blocks[0]);
  const std::vector<block_key> first{key(1)};
  CHECK(pool.find(first).blocks == 0);
  CHECK(pool.find(second).blocks == 1);
  CHECK(pool.take() == blocks[2]);
  CHECK(pool.take() == blocks[1]);
  CHECK(pool.cached() == 0);
}

TEST_CASE("of two blocks with the same key the first stays the known one") {
  block_pool pool{2};
  const block_id first = pool.take();
  const block_id second = pool.take();
  pool.publish(first, key(1));
  pool.publish(second, key(1));
  CHECK(pool.cached() == 1);
  pool.release(second);
  std::vector<block_id> held;
  const std::vector<block_key> chain{key(1)};
  pool.hold(chain, 1, held);
  CHECK(held == std::vector<block_id>{first});
  CHECK(pool.take() == second);
}

TEST_CASE("names that come and go are told once, and only if they stay so") {
  block_pool pool{2};
  pool.publish(pool.take(), key(1), 101);
  const block_id second = pool.take();
  pool.publish(second, key(2), 102);
  auto changes = pool.take_changes();
  CHECK(std::set<std::uint64_t>(changes.stored.begin(), changes.stored.end()) ==
        std::set<std::uint64_t>{101, 102});
  CHECK(changes.dropped.empty());
  CHECK(pool.take_changes().stored.empty());
  pool.release(second);
  CHECK(pool.take() == second);
  changes = pool.take_changes();
  CHECK(changes.stored.empty());
  CHECK(changes.dropped == std::vector<std::uint64_t>{102});
  // Known again and gone again, gone and known again: nothing to tell.
  pool.publish(second, key(3), 103);
  pool.release(second);
  pool.publish(pool.take(), key(4));
  changes = pool.take_changes();
  CHECK(changes.stored.empty());
  CHECK(changes.dropped.empty());
  // A second block with a known key is no news.
  block_pool other{2};
  other.publish(other.take(), key(1), 101);
  other.take_changes();
  other.publish(other.take(), key(1), 101);
  CHECK(other.take_changes().stored.empty());
}
