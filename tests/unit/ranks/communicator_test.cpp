#include "engine/ops/dense_layout.hpp"
#include "tests/unit/ranks/rank_kinds.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <mutex>
#include <random>

using namespace troupe;
using namespace troupe::test;

// One test for all that ranks talk through: threads of a process, sockets,
// devices. Numbers lie in the memory of the rank's backend.

namespace {

using floats = std::vector<float>;

/// Runs f(rank) on a thread each.
void on_all(std::size_t count, const std::function<void(std::size_t)>& f) {
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < count; ++r)
    threads.emplace_back([&, r] { f(r); });
  for (auto& one : threads)
    one.join();
}

floats downloaded(ops::backend& from, ops::buffer& what) {
  floats out(static_cast<std::size_t>(what.size()));
  from.download(what.data(), out);
  return out;
}

floats summed_by(one_rank& rank, const floats& given) {
  auto x = rank.backend->upload(given);
  rank.ranks->all_reduce(x->data(), x->size());
  return downloaded(*rank.backend, *x);
}

floats gathered_by(one_rank& rank, const floats& given, std::int64_t cols) {
  auto x = rank.backend->upload(given);
  auto out = rank.backend->allocate(x->size() * rank.ranks->size());
  rank.ranks->all_gather(x->data(), x->size() / cols, cols, out->data());
  return downloaded(*rank.backend, *out);
}

std::vector<floats> random_floats(std::size_t ranks, std::size_t n) {
  std::mt19937 random{static_cast<unsigned>(n + ranks)};
  std::normal_distribution<float> normal;
  std::vector<floats> out(ranks, floats(n));
  for (auto& one : out)
    for (auto& x : one)
      x = normal(random) * std::exp(normal(random) * 5);
  return out;
}

floats sums_of(const std::vector<floats>& given) {
  auto out = given[0];
  for (std::size_t r = 1; r < given.size(); ++r)
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] += given[r][i];
  return out;
}

bool stands_beside(const floats& all, const std::vector<floats>& given,
                   std::size_t cols) {
  const auto ranks = given.size();
  for (std::size_t r = 0; r < ranks; ++r)
    for (std::size_t i = 0; i < given[r].size(); ++i)
      if (all[(i / cols * ranks + r) * cols + i % cols] != given[r][i])
        return false;
  return all.size() == ranks * given[0].size();
}

} // namespace

TEST_CASE("ranks add up in their order, and give all what each has") {
  for (const auto& kind : all_kinds())
    for (std::size_t size : {1, 2, 3, 4}) {
      INFO(kind.name << ", " << size);
      auto ranks = kind.make(static_cast<std::int32_t>(size), make_cpu);
      REQUIRE(ranks.size() == size);
      for (std::size_t n : {1, 5, 1000, 40'001}) {
        INFO(n << " numbers");
        const auto given = random_floats(size, n);
        const auto sums = sums_of(given);
        std::vector<int> good(size);
        on_all(size, [&](std::size_t r) {
          for (int again = 0; again < 3; ++again)
            good[r] +=
                summed_by(ranks[r], given[r]) == sums &&
                stands_beside(gathered_by(ranks[r], given[r], 1), given, 1) &&
                (n % 5 != 0 ||
                 stands_beside(gathered_by(ranks[r], given[r], 5), given, 5));
        });
        for (std::size_t r = 0; r < size; ++r) {
          CHECK(ranks[r].ranks->rank() == static_cast<std::int32_t>(r));
          CHECK(good[r] == 3);
        }
      }
    }
}

TEST_CASE("what does not fit the room at once comes in pieces") {
  const auto kind = on_gpu() ? on_gpus() : emulated_devices_apart();
  // GPUs that reach each other have that too.
  const auto most = ops::gpu_rank_layout::most +
                    (on_gpu() ? ops::gpu_peer_layout::bytes() : 0);
  for (std::size_t size : {2, 3}) {
    INFO(size);
    auto ranks = kind.make(static_cast<std::int32_t>(size), make_cpu);
    constexpr std::size_t n = ops::gpu_rank_layout::most / 4 + 77;
    std::vector<floats> given(size, floats(n));
    for (std::size_t r = 0; r < size; ++r)
      for (std::size_t i = 0; i < n; ++i)
        given[r][i] = static_cast<float>((i * 7 + r * 5) % 1013) * 0.37f;
    const auto sums = sums_of(given);
    std::vector<int> good(size);
    on_all(size, [&](std::size_t r) {
      const auto bytes = ranks[r].ranks->prepare(n);
      good[r] = bytes <= most && summed_by(ranks[r], given[r]) == sums &&
                stands_beside(gathered_by(ranks[r], given[r], 1), given, 1) &&
                ranks[r].ranks->prepare(n) == bytes;
    });
    CHECK(good == std::vector<int>(size, 1));
  }
}

TEST_CASE("kernels that read other ranks' memory add up and place what fills "
          "their rooms once, often, and what is too much for them",
          "[emulated]") {
  using layout = ops::gpu_peer_layout;
  constexpr std::size_t once = layout::channels * layout::channel_floats;
  for (std::size_t size : {2, 3, 4}) {
    auto ranks =
        emulated_devices().make(static_cast<std::int32_t>(size), make_cpu);
    for (const std::size_t n :
         {std::size_t{1023}, std::size_t{1025}, once, once + 1,
          2 * once + 12'345, static_cast<std::size_t>(layout::sum_max) + 1}) {
      if (n > 1025 && size != 3)
        continue; // takes its time
      INFO(n << " numbers, " << size << " ranks");
      const auto given = random_floats(size, n);
      const auto sums = sums_of(given);
      std::vector<int> good(size);
      on_all(size, [&](std::size_t r) {
        good[r] = summed_by(ranks[r], given[r]) == sums &&
                  stands_beside(gathered_by(ranks[r], given[r], 1), given, 1);
      });
      CHECK(good == std::vector<int>(size, 1));
    }
  }
}

TEST_CASE("kernels of ranks that come early and late do not mix their numbers",
          "[emulated]") {
  constexpr std::size_t size = 3, times = 100;
  auto ranks = emulated_devices().make(size, make_cpu);
  std::vector<int> good(size);
  on_all(size, [&](std::size_t r) {
    std::mt19937 random{static_cast<unsigned>(r)};
    for (std::size_t i = 0; i < times; ++i) {
      const auto n = 1 + i % 70;
      auto given = ranks[r].backend->upload(
          floats(n, static_cast<float>(1 + i + 1000 * r)));
      for (auto wait = random() % 40; wait > 0; --wait)
        std::this_thread::yield();
      ranks[r].ranks->all_reduce(given->data(), given->size());
      const auto sum = static_cast<float>(3 * (1 + i) + 3000);
      good[r] += downloaded(*ranks[r].backend, *given) == floats(n, sum);
    }
  });
  CHECK(good == std::vector<int>(size, times));
}

TEST_CASE(
    "a kernel's wait for a rank that never comes ends with the group, and "
    "leaves what is no number",
    "[emulated]") {
  for (const bool is_sum : {true, false}) {
    auto group = std::make_shared<ops::thread_group>(2);
    std::atomic<bool> runs = false;
    auto first = cuda::make_emulated_rank(
        group, 0, {.before_kernel = [&] { runs = true; }});
    auto second = cuda::make_emulated_rank(group, 1);
    auto x = first.backend->upload(floats{1, 2, 3});
    auto out = first.backend->allocate(6);
    floats left;
    std::thread waits{[&] {
      if (is_sum)
        first.ranks->all_reduce(x->data(), 3);
      else
        first.ranks->all_gather(x->data(), 1, 3, out->data());
      left = downloaded(*first.backend, is_sum ? *x : *out);
    }};
    // The other is there, but for its kernel.
    second.ranks->prepare(3);
    group->meet();
    group->meet();
    while (!runs)
      std::this_thread::yield();
    CHECK_NOTHROW(first.ranks->check());
    group->end("rank 1: it is broken");
    waits.join();
    CHECK(left.size() == (is_sum ? 3 : 6));
    CHECK(std::all_of(left.begin(), left.end(),
                      [](float x) { return std::isnan(x); }));
    CHECK_THROWS_WITH(first.ranks->check(), "rank 1: it is broken");
    CHECK_THROWS_WITH(first.ranks->all_reduce(x->data(), 3),
                      "rank 1: it is broken");
  }
}

TEST_CASE("rank 0's bytes come to all, and all hear what each says") {
  for (const auto& kind : all_kinds())
    for (int size : {1, 2, 3, 4}) {
      INFO(kind.name << ", " << size);
      auto ranks = kind.make(size, make_cpu);
      std::vector<std::vector<std::size_t>> lengths(size);
      std::vector<std::vector<std::string>> heard(size);
      std::vector<std::thread> threads;
      for (int r = 0; r < size; ++r)
        threads.emplace_back([&, r] {
          for (std::size_t n : {0, 1, 70'000, 3}) {
            std::vector<std::byte> bytes;
            if (r == 0)
              bytes.assign(n, std::byte{42});
            ranks[r].ranks->broadcast(bytes);
            if (std::count(bytes.begin(), bytes.end(), std::byte{42}) ==
                static_cast<std::ptrdiff_t>(bytes.size()))
              lengths[r].push_back(bytes.size());
          }
          ranks[r].ranks->tell_all("");
          heard[r] =
              ranks[r].ranks->tell_all(r == 1 ? "" : std::string(r + 1, 'x'));
        });
      for (auto& one : threads)
        one.join();
      for (int r = 0; r < size; ++r) {
        CHECK(lengths[r] == std::vector<std::size_t>{0, 1, 70'000, 3});
        REQUIRE(heard[r].size() == static_cast<std::size_t>(size));
        for (int of = 0; of < size; ++of)
          CHECK(heard[r][of] == (of == 1 ? "" : std::string(of + 1, 'x')));
      }
    }
}

TEST_CASE("a rank that is gone is lost to the others") {
  for (const auto& kind : all_kinds()) {
    INFO(kind.name);
    auto ranks = kind.make(3, make_cpu);
    ranks[1].ranks.reset();
    auto x = ranks[0].backend->upload(floats{1});
    CHECK_THROWS_AS(ranks[0].ranks->all_reduce(x->data(), 1), ops::rank_lost);
    std::vector<std::byte> none;
    ranks[0].ranks.reset();
    CHECK_THROWS_AS(ranks[2].ranks->broadcast(none), ops::rank_lost);
  }
}

TEST_CASE("a wait ends with the group, and with its time") {
  using namespace std::chrono_literals;
  auto group = std::make_shared<ops::thread_group>(2);
  auto first = ops::make_thread_communicator(group, 0);
  std::atomic<int> heard = 0;
  const auto one = group->at_end([&] { ++heard; });
  group->forget(group->at_end([&] { heard += 100; }));
  std::string why;
  std::thread waits{[&] {
    try {
      group->meet(ops::thread_group::patience::endless);
    } catch (const ops::rank_lost& lost) {
      why = lost.what();
    }
  }};
  CHECK_NOTHROW(first->check());
  group->end("rank 1: it is broken");
  group->end("later");
  waits.join();
  CHECK(why == "rank 1: it is broken");
  CHECK(heard == 1);
  group->at_end([&] { ++heard; });
  CHECK(heard == 2);
  group->forget(one);
  CHECK_THROWS_WITH(first->check(), "rank 1: it is broken");

  auto alone = std::make_shared<ops::thread_group>(2, 1ms);
  CHECK_THROWS_WITH(alone->meet(),
                    "another rank of the model was not heard in time");
}

namespace {

/// Ranks of two processes: A has 0 and 1, B has 2 and 3.
struct two_processes {
  two_processes() {
    ranks = over_processes(4, [&](auto one, const auto& place) {
      std::lock_guard lock{mutex};
      (place.rank < 2 ? a : b) = place.group;
      return one_rank{nullptr, std::move(one)};
    });
  }

  /// Whether the group ends in any time that a test may take.
  static bool ends(ops::thread_group& group) {
    auto over = std::make_shared<std::atomic<bool>>(false);
    const auto listener = group.at_end([over] { *over = true; });
    for (int i = 0; i < 6'000 && !*over; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds{10});
    group.forget(listener);
    return *over;
  }

  std::mutex mutex;
  std::shared_ptr<ops::thread_group> a, b;
  std::vector<one_rank> ranks;
};

std::string reason(const std::function<void()>& f) {
  try {
    f();
  } catch (const ops::rank_lost& why) {
    return why.what();
  }
  return {};
}

} // namespace

TEST_CASE("a wait for another process ends when a rank of one's own does") {
  two_processes all;
  std::string why;
  std::thread waits{[&] {
    std::vector<std::byte> none;
    why = reason([&] { all.ranks[2].ranks->broadcast(none); });
  }};
  all.b->end("rank 3: it is broken");
  waits.join();
  CHECK(why == "rank 3: it is broken");
  CHECK(reason([&] { all.ranks[2].ranks->tell_all(""); }) == why);
  CHECK(reason([&] { all.ranks[3].ranks->check(); }) == why);
}

TEST_CASE("a process that is gone is noticed by who waits for no other rank") {
  two_processes all;
  CHECK_NOTHROW(all.a->check());
  all.b->end("rank 3: it is broken"); // and is not said to the others
  all.ranks[2].ranks.reset();
  all.ranks[3].ranks.reset();
  CHECK(two_processes::ends(*all.a));
  CHECK(reason([&] {
          all.ranks[1].ranks->check();
        }).starts_with("another process of the model is gone: "));
}

TEST_CASE("a process that ends as it should is no loss to another") {
  two_processes all;
  std::vector<std::size_t> heard(4);
  on_all(4, [&](std::size_t r) {
    std::vector<std::byte> bytes(r == 0 ? 3 : 0);
    all.ranks[r].ranks->broadcast(bytes);
    heard[r] = bytes.size();
  });
  CHECK(heard == std::vector<std::size_t>(4, 3));
  all.ranks[0].ranks.reset();
  all.ranks[1].ranks.reset();
  // It would be noticed at once.
  for (int i = 0; i < 30; ++i) {
    CHECK_NOTHROW(all.b->check());
    std::this_thread::sleep_for(std::chrono::milliseconds{10});
  }
}
