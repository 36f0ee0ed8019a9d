#include "engine/scheduler/scheduler.hpp"

#include <catch2/catch.hpp>

#include <map>

using namespace troupe;
using namespace troupe::scheduler;

namespace {

/// Blocks without sharing: what is held is the sum over the sequences.
class plain_kv final : public kv_view {
public:
  plain_kv(std::span<const sequence_state> sequences, std::uint32_t total)
      : sequences_(sequences), total_(total) {
  }

  std::uint32_t free_blocks(std::size_t running) const override {
    std::uint32_t held = 0;
    for (const sequence_state& s : sequences_.first(running))
      held += s.blocks;
    return total_ - held;
  }

  kv_cache::prefix_match find_prefix(std::size_t i) const override {
    auto found = prefixes.find(i);
    return found == prefixes.end() ? kv_cache::prefix_match{} : found->second;
  }

  std::map<std::size_t, kv_cache::prefix_match> prefixes;

private:
  std::span<const sequence_state> sequences_;
  std::uint32_t total_;
};

using rows = std::vector<std::uint32_t>;

constexpr bounds roomy{
    .max_num_seqs = 8,
    .max_num_batched_tokens = 32,
    .max_scored_rows = 32,
    .block_size = 4,
};

rows plan(const std::vector<sequence_state>& sequences, std::size_t running,
          std::uint32_t total_blocks, const bounds& limits = roomy) {
  plain_kv kv{sequences, total_blocks};
  decision out;
  plan_step(sequences, running, limits, kv, out);
  return out.rows;
}

sequence_state waiting(std::uint32_t tokens) {
  return {.tokens = tokens};
}

sequence_state running(std::uint32_t tokens, std::uint32_t computed) {
  return {.tokens = tokens, .computed = computed, .blocks = (computed + 3) / 4};
}

} // namespace

TEST_CASE("streams get their row first, the rest goes to prompts in order") {
  const rows got = plan({running(100, 40), running(9, 8), running(50, 4),
                         running(6, 5), waiting(10)},
                        4, 100);
  CHECK(got == rows{30, 1, 0, 1});
}

TEST_CASE("a waiting sequence starts with what rows are left") {
  CHECK(plan({running(20, 4), waiting(50), waiting(5)}, 1, 100) ==
        rows{16, 16});
}

TEST_CASE("rows of cached positions are not computed") {
  const std::vector<sequence_state> sequences{waiting(20)};
  plain_kv kv{sequences, 5};
  kv.prefixes[0] = {.blocks = 3, .idle = 3};
  decision out;
  plan_step(sequences, 0, roomy, kv, out);
  CHECK(out.rows == rows{8});
  REQUIRE(out.admitted.size() == 1);
  CHECK(out.admitted[0].blocks == 3);
}

TEST_CASE("idle blocks of a prefix count as taken") {
  const std::vector<sequence_state> sequences{running(9, 8), waiting(20)};
  plain_kv kv{sequences, 8}; // 2 held, 1 for the stream, 5 left
  kv.prefixes[1] = {.blocks = 4, .idle = 4};
  decision out;
  plan_step(sequences, 1, roomy, kv, out);
  CHECK(out.rows == rows{1}); // 1 new and 4 idle leave no room to grow
  kv.prefixes[1] = {.blocks = 4, .idle = 3};
  plan_step(sequences, 1, roomy, kv, out);
  CHECK(out.rows == rows{1, 4});
}

TEST_CASE("nobody overtakes a waiting sequence that does not fit yet") {
  CHECK(plan({running(9, 8), waiting(40), waiting(4)}, 1, 10) == rows{1});
}

TEST_CASE("a sequence is admitted when blocks for all its tokens exist") {
  CHECK(plan({waiting(40)}, 0, 9) == rows{});
  CHECK(plan({waiting(40)}, 0, 10) == rows{32});
}

TEST_CASE("blocks that a running prompt still needs are not given away") {
  // 10 blocks: the prompt holds 1 and needs 9 in all.
  CHECK(plan({running(36, 4), waiting(4)}, 1, 10) == rows{32});
  CHECK(plan({running(36, 4), waiting(4)}, 1, 11,
             {.max_num_seqs = 8,
              .max_num_batched_tokens = 40,
              .max_scored_rows = 1,
              .block_size = 4}) == rows{32, 4});
}

TEST_CASE("a full pool preempts the youngest") {
  // Three streams at a block's border, 6 blocks in all, 6 held.
  CHECK(plan({running(9, 8), running(9, 8), running(9, 8)}, 3, 6) ==
        rows{1, 1});
  CHECK(plan({running(9, 8), running(9, 8), running(9, 8)}, 3, 7) ==
        rows{1, 1});
  CHECK(plan({running(9, 8), running(9, 8), running(9, 8)}, 3, 9) ==
        rows{1, 1, 1});
}

TEST_CASE("nobody is admitted in a step that preempts") {
  CHECK(plan({running(9, 8), running(9, 8), waiting(1)}, 2, 4) == rows{1});
}

TEST_CASE("the oldest prompt gets on, even if streams have to go") {
  CHECK(plan({running(40, 8), running(4, 3), running(4, 3)}, 3, 4) ==
        rows{4, 1});
}

TEST_CASE("a younger prompt without blocks waits without preempting") {
  CHECK(plan({running(4, 3), running(40, 8), running(4, 3)}, 3, 4) ==
        rows{1, 0, 1});
}

TEST_CASE("no more sequences run than rows or max_num_seqs allow") {
  const std::vector<sequence_state> many(20, waiting(1));
  CHECK(plan(many, 0, 100).size() == 8);
  bounds narrow = roomy;
  narrow.max_num_batched_tokens = 3;
  CHECK(plan(many, 0, 100, narrow).size() == 3);
}

TEST_CASE("scored prompts share their bound, others go on beside them") {
  bounds limits = roomy;
  limits.max_scored_rows = 6;
  auto scored = [](sequence_state s) {
    s.is_scored = true;
    return s;
  };
  CHECK(plan({scored(running(20, 4)), scored(running(20, 4)), running(20, 4),
              scored(running(6, 5)), scored(waiting(10)), waiting(10)},
             4, 100, limits) == rows{6, 0, 16, 1});
}

TEST_CASE("a plan is a function of its input") {
  const std::vector<sequence_state> sequences{running(9, 8), running(30, 8),
                                              waiting(7)};
  CHECK(plan(sequences, 2, 20) == plan(sequences, 2, 20));
}
