#include "engine/draw_planner.hpp"
#include "engine/sampling/sampler.hpp"
#include "tests/unit/cuda/tested_device.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>
#include <random>
#include <string>

using namespace troupe;
using namespace troupe::test;
using engine::draw_planner;
using sampling::draw_input;
using sampling::sampler;

// A GPU draws what the CPU's sampler draws, to the bit: by the emulator, or
// with TROUPE_TEST_DEVICE=cuda by a GPU (scripts/gpu-check.sh).

namespace {

const std::vector<token_id> eos_ids{3, 11};
constexpr float infinity = std::numeric_limits<float>::infinity();

std::vector<ops::drawn_row> draw(ops::drawer& by, ops::buffer& logits,
                                 std::int64_t cols,
                                 const ops::draw_plan& plan) {
  by.begin(logits.data(), cols, plan);
  const auto drawn = by.end();
  return {drawn.begin(), drawn.end()};
}

/// A choice at the moment of a draw, or a token to be scored.
struct scene {
  std::vector<float> logits;
  std::vector<token_id> prompt{1, 2, 2, 7};
  std::vector<token_id> output{2, 5, 5, 9};
  sampling_params params;
  token_id scored = -1;
};

/// Both samplers over one vocabulary.
class two_samplers {
public:
  /// So many blocks, of the emulator, look at parts of the rows.
  explicit two_samplers(std::int32_t vocabulary, std::int64_t blocks = 1'000)
      : vocabulary_(vocabulary), planner_(vocabulary), cpu_(vocabulary) {
    gpu_ = make_gpu({.blocks_wanted = blocks});
    drawer_ = gpu_->drawer_of(vocabulary);
    REQUIRE(drawer_ != nullptr);
  }

  /// What the GPU gives, all rows in one call.
  std::vector<ops::drawn_row> gpu(const std::vector<scene>& all) {
    planner_.clear();
    std::vector<float> logits;
    for (const auto& one : all) {
      add(one);
      logits.insert(logits.end(), one.logits.begin(), one.logits.end());
    }
    auto in = gpu_->upload(logits);
    const auto out = draw(*drawer_, *in, vocabulary_, planner_.plan());
    std::vector<float> after(logits.size());
    gpu_->download(in->data(), after);
    CHECK(std::memcmp(after.data(), logits.data(),
                      logits.size() * sizeof(float)) == 0);
    return out;
  }

  /// What the CPU gives; id -1 for an error.
  ops::drawn_row cpu(const scene& one) {
    ops::drawn_row out;
    out.id = one.scored;
    if (out.id < 0) {
      auto drawn = cpu_.draw(input_of(one));
      if (!drawn)
        return {};
      out.id = *drawn;
    }
    const auto best = one.params.logprobs;
    if (best < 0)
      return out;
    auto found = cpu_.log_probabilities(one.logits, out.id, best);
    if (!found)
      return {};
    out.logprob = found->front().logprob;
    for (std::size_t i = 1; i < found->size(); ++i)
      out.best.emplace_back((*found)[i].id, (*found)[i].logprob);
    return out;
  }

  void check_same(const std::vector<scene>& all) {
    const auto got = gpu(all);
    for (std::size_t i = 0; i < all.size(); ++i) {
      INFO("row " << i);
      const auto expected = cpu(all[i]);
      CHECK(got[i].id == expected.id);
      if (expected.id < 0)
        continue;
      CHECK(got[i].logprob == expected.logprob);
      CHECK((got[i].best == expected.best));
    }
  }

  static draw_input input_of(const scene& one) {
    return {one.logits, one.prompt, one.output, eos_ids, one.params};
  }

private:
  void add(const scene& one) {
    if (one.scored >= 0)
      planner_.add_score(one.scored, one.params.logprobs);
    else
      planner_.add_draw(input_of(one));
  }

  std::int32_t vocabulary_;
  draw_planner planner_;
  sampler cpu_;
  std::unique_ptr<ops::backend> gpu_;
  ops::drawer* drawer_ = nullptr;
};

scene make_scene(std::int32_t vocabulary, unsigned seed, bool ties) {
  std::mt19937 random{seed};
  std::normal_distribution<float> normal{0, 3};
  scene out;
  for (std::int32_t i = 0; i < vocabulary; ++i) {
    const float logit = normal(random);
    out.logits.push_back(ties ? std::round(logit) : logit);
  }
  for (auto* tokens : {&out.prompt, &out.output})
    for (auto& id : *tokens)
      id = std::min(id, vocabulary - 1);
  out.params.seed = seed * 7919u;
  return out;
}

/// Any mixture of parameters, each left out half of the time.
void mix(sampling_params& params, std::mt19937& random,
         std::int32_t vocabulary) {
  auto between = [&](float low, float high) {
    return std::uniform_real_distribution<float>{low, high}(random);
  };
  auto maybe = [&] { return random() % 2 == 0; };
  auto some_id = [&] { return static_cast<token_id>(random() % vocabulary); };
  if (random() % 6 == 0)
    params.temperature = 0;
  else if (maybe())
    params.temperature = between(0.2f, 3);
  if (maybe())
    params.top_p = between(0.05f, 1);
  if (maybe())
    params.top_k = 1 + static_cast<int>(random() % (2 * vocabulary));
  if (maybe())
    params.min_p = between(0, 0.3f);
  if (maybe())
    params.frequency_penalty = between(-2, 2);
  if (maybe())
    params.presence_penalty = between(-2, 2);
  if (maybe())
    params.repetition_penalty = between(0.5f, 2);
  if (maybe())
    params.logit_bias = {{0, between(-5, 5)}, {vocabulary - 1, 3}};
  if (maybe()) {
    params.min_tokens = static_cast<unsigned>(random() % 8);
    params.stop_token_ids = {some_id(), some_id()};
  }
  params.logprobs = static_cast<int>(random() % 8) - 2;
  params.logprobs = std::max(params.logprobs, -1);
}

} // namespace

TEST_CASE("a GPU draws the CPU's tokens for any mixture of parameters") {
  for (auto [vocabulary, blocks] : {std::pair{12, 1'000},
                                    {48, 0},
                                    {255, 0},
                                    {256, 1'000},
                                    {257, 0},
                                    {1100, 1'000},
                                    {3000, 0},
                                    {3000, 150},
                                    {3000, 1'000}}) {
    INFO("vocabulary " << vocabulary << ", " << blocks << " blocks");
    two_samplers both{vocabulary, blocks};
    std::mt19937 random{static_cast<unsigned>(vocabulary)};
    for (bool ties : {false, true}) {
      std::vector<scene> all;
      for (unsigned i = 0; i < 60; ++i) {
        all.push_back(make_scene(vocabulary, i, ties));
        mix(all.back().params, random, vocabulary);
        if (i % 10 == 9) {
          all.back().scored = static_cast<token_id>(random() % vocabulary);
          all.back().params.logprobs = std::max(all.back().params.logprobs, 0);
        }
      }
      both.check_same(all);
    }
  }
}

TEST_CASE("a GPU draws the CPU's token of a row that many blocks look at") {
  constexpr std::int32_t vocabulary = 3000;
  two_samplers both{vocabulary};
  for (unsigned i = 0; i < 12; ++i) {
    auto one = make_scene(vocabulary, i, i % 2 == 1);
    one.params.logprobs = 1;
    if (i % 3 > 0)
      one.params.top_k = 40;
    if (i % 3 < 2)
      one.params.top_p = 0.9f;
    both.check_same({one});
  }
}

TEST_CASE("a GPU draws the CPU's tokens from a wide vocabulary") {
  constexpr std::int32_t wide = 151'936;
  two_samplers both{wide};
  std::mt19937 random{5};
  std::vector<scene> all;
  for (unsigned i = 0; i < 16; ++i) {
    all.push_back(make_scene(wide, i, i % 2 == 1));
    if (i >= 8)
      mix(all.back().params, random, wide);
  }
  all[0].params.top_p = 0.9f;
  all[1].params.top_p = 0.9f;
  all[2].params.top_k = 50;
  all[3].params.top_k = 50;
  all[3].params.top_p = 0.5f;
  all[4].params.temperature = 0;
  all[5].params.logprobs = 32;
  all[6].params.min_p = 0.05f;
  both.check_same(all);
}

TEST_CASE("greedy rows are drawn by two launches") {
  if (on_gpu())
    return; // it does not count
  cuda::emulated_usage usage;
  auto gpu = make_gpu({.blocks_wanted = 1'000, .usage = &usage});
  auto* drawer = gpu->drawer_of(3000);
  auto logits = gpu->upload(make_scene(3000, 1, false).logits);
  draw_planner planner{3000};
  scene greedy = make_scene(3000, 1, false);
  greedy.params.temperature = 0;
  planner.add_draw(two_samplers::input_of(greedy));
  const auto before = usage.launches;
  draw(*drawer, *logits, 3000, planner.plan());
  // (Of output tokens, of which this scene has some, logits would change.)
  CHECK(usage.launches - before == 2);
}

TEST_CASE("a GPU's draws are spread as the CPU's, by seed, choice and place") {
  constexpr std::int32_t vocabulary = 40;
  two_samplers both{vocabulary};
  std::vector<scene> all;
  std::vector<int> count(vocabulary);
  for (unsigned i = 0; i < 300; ++i) {
    all.push_back(make_scene(vocabulary, 1, false));
    all.back().params.temperature = 3;
    all.back().params.seed = i / 3;
    all.back().params.choice = i % 3;
    all.back().output.resize(i % 7, 2);
  }
  both.check_same(all);
  std::vector<bool> drawn(vocabulary);
  for (const auto& one : both.gpu(all))
    drawn[static_cast<std::size_t>(one.id)] = true;
  CHECK(std::count(drawn.begin(), drawn.end(), true) > 20);
}

TEST_CASE("ties at every border of a GPU's draw go to the lowest id") {
  constexpr std::int32_t vocabulary = 1100; // in two parts
  two_samplers both{vocabulary};
  std::vector<scene> all;
  for (unsigned i = 0; i < 40; ++i) {
    scene one;
    one.logits.assign(vocabulary, i % 2 ? 1.0f : -1.0f);
    // Zeros of both signs are the same.
    for (std::int32_t id = 0; id < vocabulary && i % 4 == 0; ++id)
      one.logits[id] = id % 3 == 0 ? -0.0f : 0.0f;
    one.params.seed = i;
    one.params.logprobs = 5;
    if (i % 5 == 0)
      one.params.top_k = 3;
    else if (i % 5 == 1)
      one.params.top_p = 2.5f / vocabulary;
    else if (i % 5 == 2)
      one.params.min_p = 1;
    else if (i % 5 == 3)
      one.params.temperature = 0;
    all.push_back(one);
  }
  both.check_same(all);
}

TEST_CASE("a row that holds what is no number, or nothing to draw, is left to "
          "the host") {
  constexpr std::int32_t vocabulary = 1100; // in two parts
  two_samplers both{vocabulary};
  std::vector<scene> all;
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), infinity})
    for (int at : {0, 17, 1099})
      for (float temperature : {0.0f, 1.0f}) {
        all.push_back(make_scene(vocabulary, 1, false));
        all.back().logits[at] = bad;
        all.back().params.temperature = temperature;
      }
  all.push_back(make_scene(vocabulary, 2, false));
  all.back().logits.assign(vocabulary, -infinity);
  all.push_back(make_scene(vocabulary, 3, false));
  all.back().params.min_tokens = 100;
  for (token_id id = 0; id < vocabulary; ++id)
    all.back().params.stop_token_ids.push_back(id);
  for (const auto& one : both.gpu(all))
    CHECK(one.id == -1);
  both.check_same(all);
  // What a bias makes finite can be drawn, but not scored.
  scene biased = make_scene(vocabulary, 4, false);
  biased.logits[7] = infinity;
  biased.params.logit_bias = {{7, 1.0f}};
  CHECK(both.gpu({biased})[0].id == 7);
  both.check_same({biased});
  biased.params.logprobs = 0;
  CHECK(both.gpu({biased})[0].id == -1);
  both.check_same({biased});
  // Some of minus infinity are only never drawn.
  scene some = make_scene(vocabulary, 5, false);
  for (int id = 0; id < 40; ++id)
    some.logits[id] = -infinity;
  both.check_same({some});
}

TEST_CASE("extreme parameters are the same on a GPU") {
  constexpr std::int32_t vocabulary = 48;
  two_samplers both{vocabulary};
  std::vector<scene> all(6, make_scene(vocabulary, 1, false));
  all[0].params.repetition_penalty = 1e-38f;
  all[0].params.frequency_penalty = 3e38f;
  all[0].params.logit_bias = {{3, 3e38f}, {4, -3e38f}};
  all[1].params.temperature = 1e-30f;
  all[2].params.temperature = 1e30f;
  all[3].params.top_p = 1e-30f;
  all[4].params.top_k = std::numeric_limits<std::int32_t>::max();
  all[5].params.min_p = 1;
  all[5].params.top_p = 0.5f;
  both.check_same(all);
}

TEST_CASE("an id that a mask does not have is never drawn") {
  constexpr std::int32_t vocabulary = 100;
  auto gpu = make_gpu();
  auto* drawer = gpu->drawer_of(vocabulary);
  REQUIRE(drawer != nullptr);
  sampler cpu{vocabulary};
  draw_planner planner{vocabulary};
  std::mt19937 random{3};
  std::vector<scene> all;
  std::vector<float> logits;
  ops::draw_plan plan;
  for (unsigned i = 0; i < 40; ++i) {
    auto one = make_scene(vocabulary, i, i % 2 == 0);
    mix(one.params, random, vocabulary);
    one.params.logprobs = -1;
    one.params.stop_token_ids.clear();
    one.params.min_tokens = 0;
    planner.add_draw(two_samplers::input_of(one));
    // The CPU's sampler is told by ids that must not come.
    std::vector<std::uint32_t> words((vocabulary + 31) / 32);
    one.params.min_tokens = 1000;
    one.params.stop_token_ids = eos_ids;
    for (token_id id = 0; id < vocabulary; ++id)
      if (random() % 4 == 0 && id != 3 && id != 11)
        words[id / 32] |= 1u << id % 32;
      else
        one.params.stop_token_ids.push_back(id);
    plan.masks.insert(plan.masks.end(), words.begin(), words.end());
    logits.insert(logits.end(), one.logits.begin(), one.logits.end());
    all.push_back(std::move(one));
  }
  plan.rows = planner.plan().rows;
  plan.changes = planner.plan().changes;
  for (std::size_t i = 0; i < plan.rows.size(); ++i)
    if (i != 7)
      plan.rows[i].mask = static_cast<std::int32_t>(i);
  auto in = gpu->upload(logits);
  const auto drawn = draw(*drawer, *in, vocabulary, plan);
  all[7].params.min_tokens = 0; // has no mask
  for (std::size_t i = 0; i < all.size(); ++i) {
    INFO("row " << i);
    CHECK(drawn[i].id == cpu.draw(two_samplers::input_of(all[i])).value());
  }
}

TEST_CASE("a draw counts the token of the draw before, which nobody has seen "
          "yet") {
  constexpr std::int32_t vocabulary = 40; // many tokens come again
  auto gpu = make_gpu();
  auto& drawer = *gpu->drawer_of(vocabulary);
  sampler cpu{vocabulary};
  std::mt19937 random{11};
  int known = 0, fresh = 0;
  for (unsigned round = 0; round < 20; ++round) {
    std::vector<scene> first, second;
    std::vector<float> logits[2];
    draw_planner planners[2]{draw_planner{vocabulary},
                             draw_planner{vocabulary}};
    for (unsigned i = 0; i < 9; ++i) {
      first.push_back(make_scene(vocabulary, 100 * round + i, false));
      mix(first.back().params, random, vocabulary);
      planners[0].add_draw(two_samplers::input_of(first.back()));
    }
    for (unsigned i = 0; i < 7; ++i) { // of some of them, in another order
      const auto from = static_cast<std::int32_t>(8 - i);
      second.push_back(first[static_cast<std::size_t>(from)]);
      second.back().logits =
          make_scene(vocabulary, 7777 + 100 * round + i, false).logits;
      planners[1].add_draw(two_samplers::input_of(second.back()), from);
    }
    for (const auto& one : first)
      logits[0].insert(logits[0].end(), one.logits.begin(), one.logits.end());
    for (const auto& one : second)
      logits[1].insert(logits[1].end(), one.logits.begin(), one.logits.end());
    auto in_first = gpu->upload(logits[0]), in_second = gpu->upload(logits[1]);
    drawer.begin(in_first->data(), vocabulary, planners[0].plan());
    drawer.begin(in_second->data(), vocabulary, planners[1].plan());
    const auto before = drawer.end();
    const std::vector<ops::drawn_row> drawn(before.begin(), before.end());
    const auto got = drawer.end();
    CHECK(downloaded(*gpu, *in_second) == logits[1]);
    for (std::size_t i = 0; i < second.size(); ++i) {
      auto& one = second[i];
      const auto id = drawn[8 - i].id;
      const auto is_known = std::find(one.output.begin(), one.output.end(),
                                      id) != one.output.end() ||
                            std::find(one.prompt.begin(), one.prompt.end(),
                                      id) != one.prompt.end();
      ++(is_known ? known : fresh);
      one.output.push_back(id);
      CHECK(got[i].id == cpu.draw(two_samplers::input_of(one)).value());
    }
  }
  CHECK(known > 10);
  CHECK(fresh > 10);
}

TEST_CASE("what a plan cannot hold is the host's") {
  constexpr std::int32_t vocabulary = 70'000;
  draw_planner planner{vocabulary};
  auto plain = make_scene(vocabulary, 1, false);
  auto twice = plain, many = plain, best = plain;
  twice.params.logit_bias = {{3, 1}, {4, 1}, {3, 1}};
  many.params.repetition_penalty = 2;
  for (token_id id = 0; id < vocabulary; ++id)
    many.prompt.push_back(id);
  best.params.logprobs = 33;
  for (const auto* one : {&twice, &many, &plain, &best})
    planner.add_draw(two_samplers::input_of(*one));
  planner.add_score(1, 33);
  auto some = plain;
  some.params.repetition_penalty = 2;
  planner.add_draw(two_samplers::input_of(some));
  const auto& rows = planner.plan().rows;
  std::vector<int> by_host;
  for (const auto& row : rows)
    by_host.push_back(row.by_host);
  CHECK(by_host == std::vector{1, 1, 0, 1, 1, 0});
  CHECK(rows.back().first_change == 0);
  CHECK(rows.back().changes == 5); // 1, 2, 7, 5, 9
  auto gpu = make_gpu();
  auto in = gpu->upload(std::vector<float>(rows.size() * vocabulary));
  const auto drawn =
      draw(*gpu->drawer_of(vocabulary), *in, vocabulary, planner.plan());
  for (std::size_t i = 0; i < rows.size(); ++i)
    CHECK((drawn[i].id == -1) == (by_host[i] == 1));
  CHECK(gpu->drawer_of(std::int64_t{1} << 21) == nullptr);
}
