#include "core_bench.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using namespace troupe::engine;

// On a runner whose arithmetic differs by role, prompt or output, every
// position is computed in its own, whatever happens around.

namespace {

constexpr bool has_roles = true;

told alone_with_roles(const request& r) {
  bench b{roomy(), has_roles};
  return b.reply_to(r);
}

std::vector<request> some_requests(std::mt19937& random) {
  std::vector<request> out;
  for (std::uint64_t id = 0; id < 30; ++id)
    out.push_back(random_request(id, random));
  return out;
}

} // namespace

TEST_CASE("roles change what a model gives") {
  const request r = greedy(1, prompt_of(9), 20);
  CHECK_FALSE(alone(r).same_as(alone_with_roles(r)));
}

TEST_CASE(
    "with roles a choice gives the same in any company, with any bounds") {
  for (unsigned seed = 0; seed < 25; ++seed) {
    std::mt19937 random{seed};
    const auto requests = some_requests(random);
    bench crowd{tiny(random, 6), has_roles};
    crowd.submit_all(requests, random, 3);
    REQUIRE(crowd.run());
    for (const request& r : requests) {
      INFO("seed " << seed << " id " << r.id);
      CHECK(crowd.said[r.id].same_as(alone_with_roles(r)));
    }
  }
}

TEST_CASE("with roles a resumed choice goes on as it would have") {
  for (std::uint32_t rows : {64, 5, 1}) {
    const request r = greedy(1, prompt_of(10), 20);
    const told whole = alone_with_roles(r);
    REQUIRE(whole.tokens.size() == 20);
    for (std::size_t cut : {1, 7, 19}) {
      INFO(rows << " rows, " << cut);
      engine_core::config c = roomy();
      c.bounds.max_num_batched_tokens = rows;
      bench b{c, has_roles};
      request rest = r;
      rest.resume.assign(whole.tokens.begin(), whole.tokens.begin() + cut);
      const std::vector<token_id> expected{whole.tokens.begin() + cut,
                                           whole.tokens.end()};
      CHECK(b.reply_to(rest).tokens == expected);
      // And once more, from what the cache has.
      rest.id = 2;
      CHECK(b.reply_to(rest).tokens == expected);
    }
  }
}

TEST_CASE(
    "with roles the next turn of a chat finds the prompt's blocks alone") {
  bench b{roomy(), has_roles};
  request r = greedy(1, prompt_of(10), 11);
  const told first = b.reply_to(r);
  request next = greedy(2, r.prompt, 5);
  next.prompt.insert(next.prompt.end(), first.tokens.begin(),
                     first.tokens.end());
  next.prompt.push_back(9);
  CHECK(b.reply_to(next).cached_tokens == 8); // of 10, in blocks of 4
  CHECK(b.said[2].same_as(alone_with_roles(next)));
  // The same prompt again finds its own.
  next.id = 3;
  CHECK(b.reply_to(next).cached_tokens == 20);
  CHECK(b.said[3].same_as(b.said[2]));
}
