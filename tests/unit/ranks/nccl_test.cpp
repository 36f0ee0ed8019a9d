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
  REQUIRE(living_communicators() == 0);
  {
    auto ranks = made_up_nccl().make(3, make_cpu);
    CHECK(living_communicators() == 3);
    // With the first that is gone, nobody waits for the others any more.
    ranks[1].ranks.reset();
    CHECK(living_communicators() == 0);
    CHECK(lost_by([&] { ranks[0].ranks->check(); }) ==
          "rank 1 of the model is gone");
  }
  CHECK(living_communicators() == 0);
}

TEST_CASE("a wait for a rank that hangs in a made up NCCL ends with the group",
          "[emulated]") {
  living_communicators();
  auto group = std::make_shared<ops::thread_group>(2);
  auto ranks = on_threads(
      2, [&](std::int32_t rank) { return make_rank_by_nccl(group, rank); });
  auto x = ranks[0].backend->allocate(100);
  std::string why;
  std::thread waits{[&] {
    why = lost_by([&] { ranks[0].ranks->all_reduce(x->data(), 100); });
  }};
  group->end("rank 1: it is broken");
  waits.join();
  CHECK(why == "rank 1: it is broken");
  CHECK(living_communicators() == 0);
}

TEST_CASE("a rank that is not heard in time by a made up NCCL is lost",
          "[emulated]") {
  living_communicators();
  auto group = std::make_shared<ops::thread_group>(2, 300ms);
  auto ranks = on_threads(
      2, [&](std::int32_t rank) { return make_rank_by_nccl(group, rank); });
  auto x = ranks[0].backend->allocate(100);
  const std::string late =
      "rank 0: another rank of the model was not heard in time";
  CHECK(lost_by([&] { ranks[0].ranks->all_reduce(x->data(), 100); }) == late);
  CHECK(lost_by([&] { ranks[1].ranks->check(); }) == late);
  CHECK(living_communicators() == 0);
}

TEST_CASE("a made up NCCL is not connected to a rank that never comes",
          "[emulated]") {
  living_communicators();
  auto group = std::make_shared<ops::thread_group>(2, 300ms);
  auto alone = [&] { make_rank_by_nccl(group, 0); };
  CHECK(lost_by(alone) == "another rank of the model was not heard in time");
  CHECK(living_communicators() == 0);
}
