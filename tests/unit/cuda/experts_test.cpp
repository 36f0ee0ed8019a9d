#include "cuda/device_mixture.hpp"
#include "cuda/emulated_backend.hpp"
#include "cuda/runtime/emulated.hpp"
#include "engine/ops/cpu/expert_router.hpp"
#include "engine/ops/cpu/kernels.hpp"
#include "tests/unit/cuda/random_floats.hpp"
#include "tests/unit/cuda/tested_device.hpp"
#include "tests/unit/model/naive_backend.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

using namespace troupe;
using namespace troupe::test;
using ops::mixture_params;

// Mixtures of experts that the device routes by itself: that it chooses what
// the host would, that pairs of rows and experts come to their experts'
// weights, and what comes out.

namespace {

struct choices {
  std::vector<std::int32_t> experts;
  std::vector<float> shares;
};

choices room_for(std::int64_t rows, std::int32_t chosen) {
  const auto pairs = static_cast<std::size_t>(rows * chosen);
  return {std::vector<std::int32_t>(pairs, -1), std::vector<float>(pairs, NAN)};
}

/// By the rule of the CPU.
choices by_host(std::vector<float>& scores, const mixture_params& how) {
  const auto rows = static_cast<std::int64_t>(scores.size()) / how.experts;
  auto out = room_for(rows, how.chosen);
  ops::cpu::expert_router{}.run(ops::cpu::plain_kernels(), scores.data(), rows,
                                how.experts, how.normalise,
                                {out.experts, out.shares, how.chosen});
  return out;
}

choices by_kernel(std::vector<float>& scores, const mixture_params& how) {
  const auto rows = static_cast<std::int64_t>(scores.size()) / how.experts;
  auto out = room_for(rows, how.chosen);
  cuda::emulated_device device;
  cuda::launch_over_rows(
      device, static_cast<std::size_t>(rows), {.threads = cuda::warp_size},
      cuda::route_kernel{scores.data(), how.experts, how.chosen, how.normalise,
                         out.experts.data(), out.shares.data()});
  return out;
}

/// Scores with equal ones among them, and what is no usual number.
std::vector<float> odd_scores(std::int64_t rows, std::int32_t experts,
                              std::mt19937& random) {
  auto out = random_floats(static_cast<std::size_t>(rows * experts), random());
  const auto kind = random() % 4;
  for (auto& x : out) {
    if (kind == 1)
      x = std::round(x); // -0, too
    if (kind >= 2 && random() % 3 == 0)
      x = std::vector{INFINITY, -INFINITY, NAN, -NAN, 0.0f}[random() % 5];
    if (kind == 3 && random() % 2 == 0)
      x = NAN;
  }
  return out;
}

bool all_finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(),
                     [](auto x) { return std::isfinite(x); });
}

/// Matrices of experts as a file has them, of random numbers.
struct made_experts {
  made_experts(const mixture_params& how, ops::element_type type, bool as_e4m3,
               std::uint64_t seed) {
    for (std::int32_t e = 0; e < how.experts; ++e) {
      add(how.inner, how.cols, type, seed++);
      add(how.inner, how.cols, type, seed++);
      add(how.cols, how.inner, type, seed++);
    }
    for (std::size_t i = 0; i < all.size(); i += 3) {
      ops::expert_matrices one;
      auto* to = &one.gate;
      for (std::size_t k = i; k < i + 3; ++k) {
        const bool is_down = k == i + 2;
        *to = {type, is_down ? how.cols : how.inner,
               is_down ? how.inner : how.cols, all[k]};
        to->as_e4m3 = as_e4m3;
        to = k == i ? &one.up : &one.down;
      }
      views.push_back(one);
    }
  }

  void add(std::int64_t rows, std::int64_t cols, ops::element_type type,
           std::uint64_t seed) {
    std::vector<std::byte> bytes;
    for (auto x : random_floats(static_cast<std::size_t>(rows * cols), seed)) {
      x = 0.5f * x;
      std::byte of[4];
      const auto half = type == ops::element_type::f16 ? cuda::to_f16(x).bits
                                                       : cuda::to_bf16(x).bits;
      const bool is_whole = type == ops::element_type::f32;
      std::memcpy(of, is_whole ? static_cast<const void*>(&x) : &half,
                  is_whole ? 4 : 2);
      bytes.insert(bytes.end(), of, of + (is_whole ? 4 : 2));
    }
    all.push_back(std::move(bytes));
  }

  std::vector<std::vector<std::byte>> all;
  std::vector<ops::expert_matrices> views;
};

/// y of the rows from `first` on, which begins as 2.5.
std::vector<float> mixed(ops::backend& b, const made_experts& experts,
                         const mixture_params& how, const std::vector<float>& x,
                         const std::vector<float>& scores, std::int64_t first,
                         std::int64_t rows) {
  auto weights = b.load_experts(experts.views).value();
  auto in = b.upload(std::span{x}.subspan(first * how.cols, rows * how.cols));
  auto by = b.upload(
      std::span{scores}.subspan(first * how.experts, rows * how.experts));
  auto out = b.upload(std::vector<float>(rows * how.cols, 2.5f));
  b.mix_experts(*weights, how, in->data(), by->data(), rows, out->data());
  return downloaded(b, *out);
}

} // namespace

TEST_CASE("a device chooses the experts that the host's rule chooses, of any "
          "scores") {
  std::mt19937 random{21};
  for (std::int32_t experts = 1; experts <= 128;
       experts += experts < 8 || (experts > 29 && experts < 35) ? 1 : 5)
    for (std::int32_t chosen = 1; chosen <= std::min(experts, 8); ++chosen) {
      const mixture_params how{experts, chosen, random() % 2 == 0, 0, 0};
      auto scores = odd_scores(3, experts, random);
      INFO(chosen << " of " << experts);
      const auto got = by_kernel(scores, how);
      const auto expected = by_host(scores, how);
      REQUIRE(got.experts == expected.experts);
      if (!all_finite(scores))
        continue;
      for (std::size_t i = 0; i < got.shares.size(); ++i)
        REQUIRE(got.shares[i] == Approx(expected.shares[i]).epsilon(1e-5));
    }
  std::vector<float> many(1024, 1.0f);
  many[1023] = many[700] = 2;
  CHECK(by_kernel(many, {1024, 3, false, 0, 0}).experts ==
        std::vector<std::int32_t>{700, 1023, 0});
}

TEST_CASE("pairs stand at their expert's place, in ascending order, each in "
          "one chunk") {
  const std::int32_t full = GENERATE(8, 32);
  std::mt19937 random{22};
  for (auto [rows, experts, chosen] : {std::tuple{1, 1, 1},
                                       {1, 8, 8},
                                       {3, 7, 2},
                                       {9, 3, 1},
                                       {40, 128, 8},
                                       {100, 5, 5},
                                       {33, 1024, 3},
                                       {64, 40, 1}}) {
    for (const bool all_alike : {false, true}) {
      INFO(rows << " rows, " << chosen << " of " << experts);
      std::vector<std::int32_t> chosen_by; // in any order
      for (std::int32_t row = 0; row < rows; ++row) {
        std::vector<std::int32_t> any(experts);
        for (std::int32_t e = 0; e < experts; ++e)
          any[e] = e;
        if (!all_alike) // else the first have all
          std::shuffle(any.begin(), any.end(), random);
        chosen_by.insert(chosen_by.end(), any.begin(), any.begin() + chosen);
      }
      const auto pairs = static_cast<std::int32_t>(chosen_by.size());
      const auto most = ops::gpu_mixture_layout::chunks_most(
          {experts, chosen, false, 0, 0}, rows, full);
      std::vector<std::int32_t> order(pairs, -1);
      std::vector<cuda::expert_chunk> chunks(most, {-1, -1, -1});
      cuda::emulated_device device;
      const auto segments = cuda::place_kernel::segments_for(experts);
      device.launch(
          {.threads = (experts * segments + 31u) / 32 * 32,
           .shared_floats = cuda::place_kernel::shared_floats(experts)},
          cuda::place_kernel{chosen_by.data(), pairs, experts, segments, full,
                             static_cast<std::int32_t>(most), order.data(),
                             chunks.data()});
      std::vector<std::int32_t> expected(pairs);
      for (std::int32_t p = 0; p < pairs; ++p)
        expected[p] = p;
      std::stable_sort(expected.begin(), expected.end(), [&](auto a, auto b) {
        return chosen_by[a] < chosen_by[b];
      });
      CHECK(order == expected);
      std::int32_t next = 0;
      for (const auto& chunk : chunks) {
        if (next == pairs) {
          CHECK(chunk.count == 0);
          continue;
        }
        REQUIRE(chunk.first == next);
        REQUIRE(chunk.count > 0);
        for (; next < chunk.first + chunk.count; ++next)
          REQUIRE(chosen_by[order[next]] == chunk.expert);
        // It is full, or its expert's last.
        const bool is_last =
            next == pairs || chosen_by[order[next]] != chunk.expert;
        REQUIRE((chunk.count == full || is_last));
        REQUIRE(chunk.count <= full);
      }
      CHECK(next == pairs);
    }
  }
}

TEST_CASE("mixtures of odd shapes and all types are right, and a row's bits "
          "are its own") {
  auto gpu = make_gpu(), naive = make_naive_backend();
  struct row {
    mixture_params how;
    ops::element_type type;
    float bias = 0; ///< of the first expert's scores
  };
  using enum ops::element_type;
  for (const auto& one :
       {row{{1, 1, true, 1, 1}, f32}, row{{3, 2, false, 7, 3}, f32},
        row{{8, 3, true, 24, 16}, f32}, row{{8, 3, false, 24, 16}, bf16},
        row{{5, 4, true, 33, 9}, f16}, row{{5, 1, true, 300, 17}, bf16},
        row{{6, 2, false, 40, 264}, f16}, row{{4, 1, false, 9, 5}, bf16, 50},
        row{{33, 8, true, 16, 8}, f32}}) {
    const auto& how = one.how;
    const made_experts experts{how, one.type, false, 7};
    constexpr std::int64_t most = 45; // many of an expert, of some of these
    const auto x = random_floats(most * how.cols, 5);
    auto scores = random_floats(most * how.experts, 6);
    for (std::size_t i = 0; i < scores.size(); i += how.experts)
      scores[i] += one.bias;
    for (std::int64_t rows : {1, 8, 19, 45}) {
      INFO(how.chosen << " of " << how.experts << ", " << how.cols << " x "
                      << how.inner << ", " << rows << " rows");
      const auto together = mixed(*gpu, experts, how, x, scores, 0, rows);
      const auto expected = mixed(*naive, experts, how, x, scores, 0, rows);
      float worst = 0;
      for (std::size_t i = 0; i < together.size(); ++i) {
        REQUIRE(std::isfinite(together[i]));
        worst = std::max(worst, std::abs(together[i] - expected[i]));
      }
      CHECK(worst < 2e-5f * static_cast<float>(how.cols + how.inner));
      const auto alone = mixed(*gpu, experts, how, x, scores, rows - 1, 1);
      CHECK(std::equal(alone.begin(), alone.end(), together.end() - how.cols));
      const auto last =
          mixed(*gpu, experts, how, x, scores, rows / 2, rows - rows / 2);
      CHECK(
          std::equal(last.begin(), last.end(),
                     together.end() - static_cast<std::int64_t>(last.size())));
    }
  }
}

TEST_CASE("experts in e4m3 have the scales of their own outputs") {
  // Each weight is one of two numbers, which e4m3 with a scale has exactly.
  constexpr mixture_params how{3, 2, true, 21, 5};
  made_experts experts{how, ops::element_type::f32, true, 8};
  for (std::size_t k = 0; k < experts.all.size(); ++k) {
    auto* values = reinterpret_cast<float*>(experts.all[k].data());
    const auto cols =
        static_cast<std::size_t>(k % 3 == 2 ? how.inner : how.cols);
    for (std::size_t i = 0; i < experts.all[k].size() / sizeof(float); ++i)
      values[i] = std::copysign(
          448 * std::ldexp(1.0f, -10 - static_cast<int>((k + i / cols) % 4)),
          values[i]);
  }
  auto gpu = make_gpu(), naive = make_naive_backend();
  const auto x = random_floats(9 * how.cols, 5);
  const auto scores = random_floats(9 * how.experts, 6);
  const auto got = mixed(*gpu, experts, how, x, scores, 0, 9);
  const auto expected = mixed(*naive, experts, how, x, scores, 0, 9);
  for (std::size_t i = 0; i < got.size(); ++i)
    REQUIRE(got[i] == Approx(expected[i]).margin(1e-4));
  const auto alone = mixed(*gpu, experts, how, x, scores, 4, 1);
  CHECK(std::equal(alone.begin(), alone.end(), got.begin() + 4 * how.cols));
}

TEST_CASE("more rows than are mixed at once are mixed one after the other") {
  constexpr mixture_params how{8, 8, false, 1, 1};
  constexpr std::int64_t rows = 2050;
  REQUIRE(ops::gpu_mixture_layout::rows_at_once(how, rows) == 2048);
  const made_experts experts{how, ops::element_type::f32, false, 9};
  const auto x = random_floats(rows, 5);
  const auto scores = random_floats(rows * how.experts, 6);
  auto gpu = make_gpu(), naive = make_naive_backend();
  const auto got = mixed(*gpu, experts, how, x, scores, 0, rows);
  const auto expected = mixed(*naive, experts, how, x, scores, 0, rows);
  for (std::size_t i = 0; i < got.size(); ++i)
    REQUIRE(got[i] == Approx(expected[i]).margin(1e-5));
}

TEST_CASE("scores that are no numbers disturb no other row") {
  constexpr mixture_params how{9, 4, true, 12, 6};
  const made_experts experts{how, ops::element_type::f32, false, 10};
  const auto x = random_floats(5 * how.cols, 5);
  auto scores = random_floats(5 * how.experts, 6);
  auto gpu = make_gpu();
  const auto undisturbed = mixed(*gpu, experts, how, x, scores, 0, 5);
  const auto row = scores.begin() + 2 * how.experts;
  for (const auto& [one, other] : {std::pair{NAN, 1.0f},
                                   {NAN, NAN},
                                   {INFINITY, INFINITY},
                                   {-INFINITY, -INFINITY},
                                   {NAN, -INFINITY}}) {
    std::fill(row, row + how.experts, other);
    row[3] = one;
    auto got = mixed(*gpu, experts, how, x, scores, 0, 5);
    for (std::int64_t i = 2 * how.cols; i < 3 * how.cols; ++i)
      CHECK(std::isnan(got[i]));
    std::copy_n(undisturbed.begin() + 2 * how.cols, how.cols,
                got.begin() + 2 * how.cols);
    CHECK(got == undisturbed);
  }
}

TEST_CASE("what a mixture reads is said, and more experts than there may be "
          "are refused by name") {
  auto gpu = make_gpu();
  constexpr mixture_params how{8, 3, true, 4, 2};
  const made_experts experts{how, ops::element_type::bf16, false, 11};
  auto weights = gpu->load_experts(experts.views).value();
  // A gate and what it multiplies of 2 x 4, then 4 x 2; each 16 bytes at least.
  CHECK(weights->bytes() == 8 * (32 + 16));
  auto x = gpu->upload(random_floats(4 * how.cols, 5));
  auto scores = gpu->upload(random_floats(4 * how.experts, 6));
  auto y = gpu->allocate(4 * how.cols);
  for (std::int64_t rows = 1; rows <= 4; ++rows)
    CHECK(gpu->mix_experts(*weights, how, x->data(), scores->data(), rows,
                           y->data()) ==
          static_cast<std::uint64_t>(std::min<std::int64_t>(3 * rows, 8) * 48));
  const std::vector<ops::expert_matrices> many(1025, experts.views.front());
  auto refused = gpu->load_experts(many);
  REQUIRE(!refused.has_value());
  CHECK(refused.error().message ==
        "layers of more than 1024 experts are not supported on a GPU");
}
