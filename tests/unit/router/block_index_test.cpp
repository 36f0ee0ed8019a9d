#include "router/policy/block_index.hpp"
#include "router/policy/kv_index.hpp"
#include "router/policy/prefix_affinity.hpp"

#include <catch2/catch.hpp>

#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

using namespace troupe;
using namespace troupe::router;
using namespace std::chrono_literals;
using codec::block_name;

namespace {

std::vector<std::int32_t> tokens(std::size_t count, std::int32_t first) {
  std::vector<std::int32_t> out(count);
  std::iota(out.begin(), out.end(), first);
  return out;
}

std::vector<block_name> chain(std::size_t blocks, std::int32_t first) {
  return codec::block_names(tokens(blocks * 16 + 1, first), 16);
}

std::vector<std::uint32_t> match(const block_index& index,
                                 const std::vector<block_name>& of,
                                 const std::vector<std::uint64_t>& holders) {
  std::vector<std::uint32_t> out(holders.size());
  index.match(of, holders, out);
  return out;
}

std::vector<replica_snapshot> replicas(std::size_t count) {
  std::vector<replica_snapshot> out(count);
  for (std::size_t i = 0; i < count; ++i)
    out[i].incarnation = i + 1;
  return out;
}

choice_wish wish_for(const std::vector<block_name>& blocks) {
  return {blocks.size() * 16 + 1, 0, blocks, 16};
}

protocol::kv_events told(std::uint64_t sequence, std::vector<block_name> stored,
                         std::vector<block_name> dropped = {},
                         bool all = false) {
  return {sequence, all, 16, std::move(stored), std::move(dropped)};
}

} // namespace

TEST_CASE("blocks have names that tell their tokens, their place and all "
          "before them") {
  auto one = codec::block_names(tokens(33, 0), 16);
  REQUIRE(one.size() == 2);
  CHECK(codec::block_names(tokens(32, 0), 16).size() ==
        1); // not the last token
  CHECK(codec::block_names({}, 16).empty());
  CHECK(codec::block_names(tokens(33, 0), 0).empty());
  CHECK(one == codec::block_names(tokens(40, 0), 16));
  std::set<block_name> names;
  for (std::int32_t first = 0; first < 100; ++first)
    for (auto name : chain(100, first))
      names.insert(name);
  // Blocks of consecutive numbers are never equal: their starts differ.
  CHECK(names.size() == 10'000);
  CHECK(names.count(codec::root_name) == 0);
  auto odd = codec::block_names(tokens(31, 5), 15);
  CHECK(odd.size() == 2);
  CHECK(odd[0] != codec::block_names(tokens(31, 5), 14)[0]);
}

TEST_CASE("a match is as long as the chain is held without a gap") {
  block_index index{1 << 20, 7};
  auto all = chain(6, 0);
  for (std::size_t i = 0; i < 6; ++i) {
    index.add(all[i], 1);
    if (i < 3)
      index.add(all[i], 2);
    if (i != 1)
      index.add(all[i], 3);
  }
  CHECK(match(index, all, {1, 2, 3, 4}) ==
        std::vector<std::uint32_t>{6, 3, 1, 0});
  CHECK(match(index, chain(6, 1), {1, 2, 3}) ==
        std::vector<std::uint32_t>{0, 0, 0});
  CHECK(match(index, {}, {1}) == std::vector<std::uint32_t>{0});
  index.remove(all[2], 1);
  index.remove(all[2], 99);
  CHECK(match(index, all, {1, 2}) == std::vector<std::uint32_t>{2, 3});
  index.remove_all(2);
  CHECK(match(index, all, {1, 2, 3}) == std::vector<std::uint32_t>{2, 0, 1});
  CHECK(index.size_of(2) == 0);
}

TEST_CASE("the index agrees with a plain one, whatever happens") {
  auto seed = GENERATE(1u, 2u, 3u);
  std::mt19937_64 random{seed};
  block_index index{1 << 20, random()};
  std::map<std::uint64_t, std::set<block_name>> plain;
  std::vector<std::vector<block_name>> chains;
  for (int i = 0; i < 40; ++i)
    chains.push_back(chain(1 + random() % 20, static_cast<int>(i / 2 * 1000)));
  std::vector<std::uint64_t> holders;
  for (std::uint64_t i = 1; i <= 150; ++i) // more than two words of bits
    holders.push_back(i);
  for (int step = 0; step < 20'000; ++step) {
    auto holder = 1 + random() % 150;
    auto& some = chains[random() % chains.size()];
    auto name = some[random() % some.size()];
    auto what = random() % 100;
    if (what < 60) {
      REQUIRE(index.add(name, holder));
      plain[holder].insert(name);
    } else if (what < 99) {
      index.remove(name, holder);
      plain[holder].erase(name);
    } else {
      index.remove_all(holder);
      plain.erase(holder);
    }
    if (step % 500 != 0)
      continue;
    auto found = match(index, some, holders);
    for (std::size_t i = 0; i < holders.size(); ++i) {
      auto& held = plain[holders[i]];
      std::uint32_t length = 0;
      while (length < some.size() && held.count(some[length]) != 0)
        ++length;
      REQUIRE(found[i] == length);
      REQUIRE(index.size_of(holders[i]) == held.size());
    }
    std::set<block_name> distinct;
    for (auto& [one, held] : plain)
      distinct.insert(held.begin(), held.end());
    REQUIRE(index.size() == distinct.size());
  }
}

TEST_CASE("an index never grows past its bound, and forgets what is not used") {
  constexpr std::size_t bound = 64 << 10;
  block_index index{bound, 3};
  auto kept = chain(20, 0);
  std::size_t refused = 0;
  for (std::int32_t i = 0; i < 1000; ++i) {
    for (auto name : kept)
      if (!index.add(name, 1))
        index.forget_one(), index.add(name, 1);
    for (auto name : chain(10, 1'000'000 + i * 1000))
      if (!index.add(name, 2)) {
        ++refused;
        index.forget_one();
        REQUIRE(index.add(name, 2));
      }
    REQUIRE(index.bytes() <= bound);
  }
  CHECK(refused > 1000);
  CHECK(match(index, kept, {1}) == std::vector<std::uint32_t>{20});
  CHECK(index.size_of(1) == 20);
  // Many replicas make cells larger, the whole not.
  for (std::uint64_t holder = 10; holder < 600; ++holder) {
    index.add(kept[0], holder);
    REQUIRE(index.bytes() <= bound);
  }
}

TEST_CASE("prefixes go where they went before, new ones spread") {
  prefix_affinity policy{{}, 1 << 20, 5};
  auto some = replicas(4);
  std::map<std::int32_t, std::size_t> home;
  std::map<std::size_t, int> shares;
  std::mt19937_64 random{9};
  for (std::int32_t i = 0; i < 40; ++i) {
    auto blocks = chain(8, i * 1000);
    auto chosen = policy.choose(wish_for(blocks), some, random());
    REQUIRE(chosen);
    CHECK(chosen->cached_tokens == 0);
    home[i] = chosen->place;
    ++shares[chosen->place];
    policy.sent(wish_for(blocks), some[chosen->place].incarnation);
  }
  for (auto [place, count] : shares)
    CHECK(count == 10);
  for (std::int32_t i = 0; i < 40; ++i) {
    auto longer = chain(12, i * 1000);
    auto chosen = policy.choose(wish_for(longer), some, random());
    CHECK(chosen->place == home[i]);
    CHECK(chosen->cached_tokens == 8 * 16);
  }
  policy.forget(some[home[0]].incarnation);
  CHECK(policy.choose(wish_for(chain(8, 0)), some, 1)->cached_tokens == 0);
}

TEST_CASE("a match counts only as far as it is worth its wait") {
  auto some = replicas(2);
  auto blocks = chain(10, 0);
  prefix_affinity policy{{}, 1 << 20, 5};
  policy.sent(wish_for(blocks), 1);
  some[0].tokens = 3 * 160 - 1; // what is computed counts thrice
  CHECK(policy.choose(wish_for(blocks), some, 0)->place == 0);
  some[0].tokens = 3 * 160 + 1;
  CHECK(policy.choose(wish_for(blocks), some, 0)->place == 1);

  SECTION("a short match is none") {
    prefix_affinity strict{{0.5, 100}, 1 << 20, 5};
    strict.sent(wish_for(chain(4, 0)), 1);
    some[0].tokens = 1;
    CHECK(strict.choose(wish_for(blocks), some, 0)->place == 1);
    strict.sent(wish_for(chain(5, 0)), 1);
    CHECK(strict.choose(wish_for(blocks), some, 0)->place == 0);
  }
  SECTION("among uneven replicas it does not count") {
    prefix_affinity even{{0.1, 2}, 1 << 20, 5};
    even.sent(wish_for(blocks), 1);
    some[0].tokens = 1;
    some[0].choices = 2;
    CHECK(even.choose(wish_for(blocks), some, 0)->place == 0);
    some[0].choices = 3;
    CHECK(even.choose(wish_for(blocks), some, 0)->place == 1);
  }
}

TEST_CASE("the memory of prefixes is bounded") {
  prefix_affinity policy{{}, 64 << 10, 5};
  auto some = replicas(2);
  auto kept = chain(8, 0);
  for (std::int32_t i = 1; i < 2000; ++i) {
    policy.sent(wish_for(kept), 1);
    policy.sent(wish_for(chain(8, i * 1000)), 2);
  }
  CHECK(policy.choose(wish_for(kept), some, 0)->cached_tokens == 128);
  CHECK(policy.choose(wish_for(chain(8, 1000)), some, 0)->cached_tokens == 0);
  CHECK(policy.choose(wish_for(chain(8, 1'999'000)), some, 0)->cached_tokens ==
        128);
}

TEST_CASE("a KV index asks for all at first, after a gap and after silence") {
  kv_index index{{}, 5};
  kv_index::time_point now{100s};
  auto blocks = chain(4, 0);
  auto cached = [&] {
    return index.choose(wish_for(blocks), replicas(1), 0)->cached_tokens;
  };
  CHECK(!index.should_ask(1, now)); // nobody follows it
  index.take(1, told(1, blocks, {}, true));
  CHECK(cached() == 0);
  index.follow(1);
  CHECK(index.should_ask(1, now));
  CHECK(!index.should_ask(1, now));
  CHECK(!index.should_ask(1, now + 1s));
  CHECK(index.should_ask(1, now + 2s));
  index.take(1, told(1, {blocks[0]})); // before all: of no use
  CHECK(cached() == 0);
  index.take(1, told(1, {blocks[0], blocks[1]}, {}, true));
  CHECK(index.block_size() == 16);
  CHECK(cached() == 32);
  CHECK(!index.should_ask(1, now + 10s));
  index.take(1, told(2, {blocks[2]}));
  CHECK(cached() == 48);
  index.take(1, told(3, {}, {blocks[1]}));
  CHECK(cached() == 16);

  SECTION("an event twice or one that is missing: all again") {
    index.take(1, told(GENERATE(3u, 5u), {blocks[1]}));
    CHECK(cached() == 16);
    CHECK(index.should_ask(1, now + 10s));
    index.take(1, told(6, blocks, {}, true));
    CHECK(cached() == 64);
    index.take(1, told(7, {}, {blocks[3]}));
    CHECK(cached() == 48);
  }
  SECTION("a replica that is gone has nothing, and a new one is asked") {
    index.forget(1);
    CHECK(cached() == 0);
    index.take(1, told(4, {blocks[1]}));
    CHECK(cached() == 0);
    index.follow(1);
    CHECK(index.should_ask(1, now + 10s));
  }
}

TEST_CASE("a KV index whose predictions are wrong asks for all, now and then") {
  kv_index index{{}, 5};
  kv_index::time_point now{100s};
  index.follow(1);
  index.should_ask(1, now);
  index.take(1, told(1, {}, {}, true));
  now += 10s;
  for (int i = 0; i < 100; ++i)
    index.compare(1, 1000, 900);
  CHECK(!index.should_ask(1, now)); // near enough
  for (int i = 0; i < 20; ++i)
    index.compare(1, 1000, 0);
  CHECK(index.should_ask(1, now));
  CHECK(!index.should_ask(1, now + 4s));
  CHECK(index.should_ask(1, now + 5s));
  index.take(1, told(2, {}, {}, true));
  for (int i = 0; i < 20; ++i)
    index.compare(1, 0, 1000);
  CHECK(!index.should_ask(1, now + 6s)); // not before its time
  CHECK(index.should_ask(1, now + 10s));
}

TEST_CASE("what a KV index is told of does not grow past its bound") {
  kv_index::limits small;
  small.bytes_max = 64 << 10;
  kv_index index{small, 5};
  index.follow(1);
  index.take(1, told(1, {}, {}, true));
  for (std::uint64_t i = 0; i < 500; ++i)
    index.take(1, told(2 + i, chain(20, static_cast<std::int32_t>(i) * 1000)));
  CHECK(index.blocks().bytes() <= small.bytes_max);
  CHECK(index.blocks().size() > 1000);
}
