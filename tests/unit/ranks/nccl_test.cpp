#include "tests/unit/ranks/rank_kinds.hpp"

#include <chrono>

using namespace troupe;
using namespace troupe::test;

// The calls of NCCL, by a library in its place that holds us to its rules. What
// NCCL itself does only GPUs can show.

namespace {

using namespace std::chrono_literals;

/// What `f` throws as rank_lost.
template <class F>
std::string lost_by(F f) {
  try {
    f();
  } catch (const ops::rank_lost& why) {
    return why.what();
  }
  return {};
}

} // namespace

TEST_CASE("communicators of a made up NCCL are given back", "[emulated]") {
  REQUIRE(made_up().living() == 0);
  {
    auto ranks = made_up_nccl().make(3, make_cpu);
    CHECK(made_up().living() == 3);
    // With the first that is gone, nobody waits for the others any more.
    ranks[1].ranks.reset();
    CHECK(made_up().living() == 0);
    CHECK(lost_by([&] { ranks[0].ranks->check(); }) ==
          "rank 1 of the model is gone");
  }
  CHECK(made_up().living() == 0);
}

TEST_CASE("a wait for a rank that hangs in a made up NCCL ends with the group",
          "[emulated]") {
  made_up(); // is found instead of NCCL
  auto group = std::make_shared<ops::thread_group>(2);
  auto ranks = on_threads(
      2, [&](std::int32_t rank) { return make_rank_by_nccl(group, rank); });
  auto x = ranks[0].backend->allocate(100);
  std::string why;
  std::thread waits{[&] {
    ranks[0].ranks->all_reduce(x->data(), 100);
    why = lost_by([&] { ranks[0].ranks->check(); });
  }};
  while (made_up().waiting() == 0)
    std::this_thread::yield();
  group->end("rank 1: it is broken");
  waits.join();
  CHECK(why == "rank 1: it is broken");
  CHECK(lost_by([&] { ranks[0].ranks->all_reduce(x->data(), 100); }) == why);
  CHECK(made_up().living() == 0);
}

TEST_CASE("a made up NCCL is not connected to a rank that never comes",
          "[emulated]") {
  made_up(); // is found instead of NCCL
  auto group = std::make_shared<ops::thread_group>(2, 300ms);
  auto alone = [&] { make_rank_by_nccl(group, 0); };
  CHECK(lost_by(alone) == "another rank of the model was not heard in time");
  CHECK(made_up().living() == 0);
}
