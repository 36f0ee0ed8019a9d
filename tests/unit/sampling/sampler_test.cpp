#include "engine/sampling/sampler.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>

using namespace troupe;
using namespace troupe::sampling;

namespace {

constexpr int vocabulary = 48;

/// A choice to draw for, with names for its parts.
struct scene {
  std::vector<float> logits;
  std::vector<token_id> prompt{1, 2, 2, 3};
  std::vector<token_id> output{4, 5, 5, 5, 2};
  std::vector<token_id> eos{6};
  sampling_params params;

  draw_input input() const {
    return {logits, prompt, output, eos, params};
  }
};

scene make_scene(unsigned seed) {
  scene s;
  std::mt19937 random{seed};
  std::normal_distribution<float> normal{0, 1.5f};
  for (int i = 0; i < vocabulary; ++i)
    s.logits.push_back(normal(random));
  return s;
}

token_id draw(const scene& s) {
  return sampler{static_cast<std::int32_t>(s.logits.size())}
      .draw(s.input())
      .value();
}

/// The logits after bias, penalties and mask, written as plainly as can be.
std::vector<double> reference_logits(const scene& s) {
  const sampling_params& p = s.params;
  std::vector<double> logits(s.logits.begin(), s.logits.end());
  for (auto [id, bias] : p.logit_bias)
    logits[id] += bias;
  for (token_id id = 0; id < vocabulary; ++id) {
    const auto in_prompt = std::count(s.prompt.begin(), s.prompt.end(), id);
    const auto in_output = std::count(s.output.begin(), s.output.end(), id);
    if (in_prompt + in_output > 0)
      logits[id] = logits[id] > 0 ? logits[id] / p.repetition_penalty
                                  : logits[id] * p.repetition_penalty;
    logits[id] -= p.frequency_penalty * in_output;
    if (in_output > 0)
      logits[id] -= p.presence_penalty;
    const bool ends =
        std::count(s.eos.begin(), s.eos.end(), id) +
        std::count(p.stop_token_ids.begin(), p.stop_token_ids.end(), id);
    if (ends && s.output.size() < p.min_tokens)
      logits[id] = -std::numeric_limits<double>::infinity();
  }
  return logits;
}

void normalise(std::vector<double>& p) {
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p)
    x /= sum;
}

/// The distribution of the next token in float64: every step over all ids.
std::vector<double> reference_distribution(const scene& s) {
  const std::vector<double> logits = reference_logits(s);
  const sampling_params& params = s.params;
  std::vector<double> p(vocabulary);
  const double max = *std::max_element(logits.begin(), logits.end());
  for (int i = 0; i < vocabulary; ++i)
    p[i] = std::exp((logits[i] - max) / params.temperature);
  normalise(p);
  std::vector<int> order(vocabulary);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return logits[a] > logits[b]; });
  if (params.top_k > 0)
    for (int rank = params.top_k; rank < vocabulary; ++rank)
      p[order[rank]] = 0;
  const double least = params.min_p * p[order[0]];
  for (double& x : p)
    x = x < least ? 0 : x;
  normalise(p);
  double before = 0;
  for (int id : order) {
    const double own = p[id];
    if (before >= params.top_p)
      p[id] = 0;
    before += own;
  }
  normalise(p);
  return p;
}

/// Draws for many choices and compares with `p` by chi-square; fixed seeds, so
/// the outcome never changes from run to run.
bool follows(scene s, const std::vector<double>& p) {
  constexpr int draws = 4000;
  std::vector<int> count(vocabulary);
  sampler sampler{vocabulary};
  for (int i = 0; i < draws; ++i) {
    s.params.choice = i;
    ++count[sampler.draw(s.input()).value()];
  }
  double sum = 0;
  double rare_expected = 0;
  int rare_count = 0;
  int cells = 0;
  for (int i = 0; i < vocabulary; ++i) {
    if (p[i] == 0) {
      if (count[i] > 0)
        return false; // drew what must not be drawn
      continue;
    }
    if (p[i] * draws < 8) {
      rare_expected += p[i] * draws;
      rare_count += count[i];
      continue;
    }
    sum += std::pow(count[i] - p[i] * draws, 2) / (p[i] * draws);
    ++cells;
  }
  if (rare_expected > 1) {
    sum += std::pow(rare_count - rare_expected, 2) / rare_expected;
    ++cells;
  }
  // Far beyond what chance gives: 4.5 standard deviations and a little.
  const double degrees = std::max(cells - 1, 1);
  return sum < degrees + 4.5 * std::sqrt(2 * degrees) + 5;
}

using change = void (*)(sampling_params&);

constexpr change changes[] = {
    [](sampling_params& p) { p.temperature = 0.6f; },
    [](sampling_params& p) { p.temperature = 1.7f; },
    [](sampling_params& p) { p.top_p = 0.7f; },
    [](sampling_params& p) { p.top_k = 5; },
    [](sampling_params& p) { p.min_p = 0.2f; },
    [](sampling_params& p) { p.frequency_penalty = 1.2f; },
    [](sampling_params& p) { p.presence_penalty = -1.9f; },
    [](sampling_params& p) { p.repetition_penalty = 2.5f; },
    [](sampling_params& p) {
      p.logit_bias = {{7, 3.5f}, {8, -100.0f}, {9, 2.0f}};
    },
    [](sampling_params& p) { p.min_tokens = 6; },
    [](sampling_params& p) {
      p.min_tokens = 6;
      p.stop_token_ids = {10, 11, 12};
    },
};

/// Logits under which every change matters much.
scene sensitive_scene() {
  scene s = make_scene(5);
  s.logits[2] = 2.5f;
  s.logits[5] = 3;
  s.logits[6] = 3;
  s.logits[10] = 2;
  return s;
}

} // namespace

TEST_CASE("without parameters tokens follow the softmax of the logits") {
  for (unsigned seed : {1, 2, 3}) {
    const scene s = make_scene(seed);
    CHECK(follows(s, reference_distribution(s)));
  }
}

TEST_CASE("each parameter alone gives its distribution and no other") {
  for (change apply : changes) {
    scene s = sensitive_scene();
    const auto unchanged = reference_distribution(s);
    apply(s.params);
    INFO("change " << &apply - changes);
    CHECK(follows(s, reference_distribution(s)));
    CHECK_FALSE(follows(s, unchanged));
  }
}

TEST_CASE("every pair of parameters works together") {
  for (const change& first : changes)
    for (const change* second = &first + 1; second != std::end(changes);
         ++second) {
      scene s = sensitive_scene();
      first(s.params);
      (*second)(s.params);
      CHECK(follows(s, reference_distribution(s)));
    }
}

TEST_CASE("all parameters at once, in many mixtures") {
  std::mt19937 random{11};
  auto between = [&](float low, float high) {
    return std::uniform_real_distribution<float>{low, high}(random);
  };
  for (unsigned round = 0; round < 60; ++round) {
    scene s = make_scene(round);
    s.params.temperature = between(0.3f, 2);
    s.params.top_p = between(0.3f, 1);
    s.params.top_k = static_cast<int>(between(1, 30));
    s.params.min_p = between(0, 0.2f);
    s.params.frequency_penalty = between(-2, 2);
    s.params.presence_penalty = between(-2, 2);
    s.params.repetition_penalty = between(0.5f, 2);
    s.params.min_tokens = static_cast<unsigned>(between(3, 8));
    s.params.logit_bias = {{token_id(between(0, 47)), between(-5, 5)},
                           {token_id(between(0, 47)), between(-5, 5)}};
    s.params.seed = round;
    INFO("round " << round);
    CHECK(follows(s, reference_distribution(s)));
  }
}

TEST_CASE("temperature 0 takes the best token, ties the lowest id") {
  scene s = make_scene(1);
  s.params.temperature = 0;
  s.logits[20] = 9;
  s.logits[30] = 9;
  CHECK(draw(s) == 20);
  s.params.logit_bias = {{30, 0.5f}};
  CHECK(draw(s) == 30);
}

TEST_CASE("greedy choices heed penalties and the mask of ends") {
  scene s = make_scene(1);
  s.params.temperature = 0;
  s.logits[5] = 10; // three times in the output
  s.logits[2] = 9;  // in prompt and output
  s.logits[3] = 8;  // in the prompt
  s.logits[6] = 7;  // end of text
  s.logits[40] = 6;
  CHECK(draw(s) == 5);
  SECTION("frequency") {
    s.params.frequency_penalty = 1;
    CHECK(draw(s) == 2); // 10 - 3 against 9 - 1, 8
  }
  SECTION("presence") {
    s.params.presence_penalty = 2.5f;
    CHECK(draw(s) == 3); // 10 - 2.5 and 9 - 2.5 against 8
  }
  SECTION("repetition counts the prompt too") {
    s.params.repetition_penalty = 2;
    CHECK(draw(s) == 6);
    s.params.min_tokens = 6;
    CHECK(draw(s) == 40);
    s.params.min_tokens = 5;
    CHECK(draw(s) == 6);
  }
}

TEST_CASE("negative logits are penalised downwards") {
  scene s = make_scene(1);
  std::fill(s.logits.begin(), s.logits.end(), -3.0f);
  s.logits[5] = -1;
  s.params.temperature = 0;
  s.params.repetition_penalty = 4;
  CHECK(draw(s) == 0);
}

TEST_CASE("ties at the border of top_k, min_p and top_p go to the lowest id") {
  scene s;
  s.logits.assign(vocabulary, 1.0f);
  auto drawn = [&] {
    std::set<token_id> ids;
    for (int i = 0; i < 400; ++i) {
      s.params.choice = i;
      ids.insert(draw(s));
    }
    return ids;
  };
  SECTION("top_k") {
    s.params.top_k = 3;
    CHECK(drawn() == std::set<token_id>{0, 1, 2});
  }
  SECTION("top_p") {
    s.params.top_p = 2.5f / vocabulary;
    CHECK(drawn() == std::set<token_id>{0, 1, 2});
  }
  SECTION("top_p of what top_k left") {
    s.params.top_k = 4;
    s.params.top_p = 0.5f;
    CHECK(drawn() == std::set<token_id>{0, 1});
  }
  SECTION("min_p keeps all that are equal to the best") {
    s.params.min_p = 1;
    s.logits[9] = s.logits[12] = 2;
    CHECK(drawn() == std::set<token_id>{9, 12});
  }
}

TEST_CASE("a tiny top_p or top_k 1 is greedy") {
  scene s = make_scene(3);
  const token_id best = static_cast<token_id>(
      std::max_element(s.logits.begin(), s.logits.end()) - s.logits.begin());
  for (int i = 0; i < 50; ++i) {
    s.params.seed = i;
    s.params.top_k = 1;
    CHECK(draw(s) == best);
    s.params.top_k = 0;
    s.params.top_p = 1e-6f;
    CHECK(draw(s) == best);
    s.params.top_p = 1;
    s.params.temperature = 1e-30f;
    CHECK(draw(s) == best);
    s.params.temperature = 1;
  }
}

TEST_CASE("top_k of the whole vocabulary and more cuts nothing") {
  scene s = make_scene(4);
  const auto p = reference_distribution(s);
  s.params.top_k = vocabulary;
  CHECK(follows(s, p));
  s.params.top_k = std::numeric_limits<std::int32_t>::max();
  CHECK(follows(s, p));
}

TEST_CASE(
    "the draw depends on seed, choice and position, and on nothing kept") {
  scene s = make_scene(6);
  s.params.temperature = 5;
  sampler used{vocabulary};
  std::set<token_id> by_seed, by_choice, by_position;
  for (int i = 0; i < 60; ++i) {
    scene one = s;
    one.params.seed = i;
    by_seed.insert(used.draw(one.input()).value());
    CHECK(used.draw(one.input()).value() == draw(one));
    one = s;
    one.params.choice = i;
    by_choice.insert(used.draw(one.input()).value());
    one = s;
    one.output.resize(i, 4);
    by_position.insert(used.draw(one.input()).value());
  }
  CHECK(by_seed.size() > 10);
  CHECK(by_choice.size() > 10);
  CHECK(by_position.size() > 10);
}

TEST_CASE("a wide vocabulary gives the same with and without shortcuts") {
  // top_p looks at a window of the best first; its bounds must not show.
  constexpr int wide = 20000;
  scene s;
  std::mt19937 random{9};
  std::normal_distribution<float> normal{0, 2};
  for (int i = 0; i < wide; ++i)
    s.logits.push_back(std::round(normal(random) * 8) / 8); // many ties
  s.params.temperature = 1.5f;
  for (int i = 0; i < 200; ++i) {
    s.params.seed = i;
    s.params.top_p = 0.2f + 0.004f * i;
    s.params.top_k = 0;
    const token_id by_window = draw(s);
    s.params.top_k = wide;
    CHECK(by_window == draw(s));
  }
}

TEST_CASE("logits that are no numbers are an error") {
  scene s = make_scene(1);
  auto fails = [&] {
    sampler sampler{vocabulary};
    return sampler.draw(s.input()).has_error() &&
           sampler.log_probabilities(s.logits, 0, 2).has_error();
  };
  CHECK_FALSE(fails());
  for (int at : {0, 17, 31, 32, 47}) {
    const float kept = s.logits[at];
    s.logits[at] = std::numeric_limits<float>::quiet_NaN();
    CHECK(fails());
    s.logits[at] = std::numeric_limits<float>::infinity();
    CHECK(fails());
    s.logits[at] = kept;
  }
  s.logits.assign(vocabulary, -std::numeric_limits<float>::infinity());
  CHECK(fails());
}

TEST_CASE("extreme parameters neither crash nor draw nonsense") {
  scene s = make_scene(1);
  s.params.repetition_penalty = 1e-38f;
  s.params.frequency_penalty = 3e38f;
  s.params.logit_bias = {{3, 3e38f}, {3, 3e38f}, {4, -3e38f}};
  CHECK(draw(s) == 3);
}

TEST_CASE("if all tokens are masked the draw is an error") {
  scene s = make_scene(1);
  s.params.min_tokens = 100;
  for (token_id id = 0; id < vocabulary; ++id)
    s.params.stop_token_ids.push_back(id);
  CHECK(sampler{vocabulary}.draw(s.input()).has_error());
}

TEST_CASE("log-probabilities are those of the raw logits") {
  scene s = make_scene(8);
  s.logits[13] = s.logits[7] = 6; // a tie
  s.params.temperature = 0.1f;
  const auto got =
      sampler{vocabulary}.log_probabilities(s.logits, 20, 3).value();
  double sum = 0;
  for (float logit : s.logits)
    sum += std::exp(double{logit});
  REQUIRE(got.size() == 4);
  CHECK(got[0].id == 20);
  CHECK(got[1].id == 7);
  CHECK(got[2].id == 13);
  for (const candidate& c : got)
    CHECK(c.logprob == Approx(s.logits[c.id] - std::log(sum)).epsilon(1e-6));
  CHECK(sampler{vocabulary}.log_probabilities(s.logits, 20, 0).value().size() ==
        1);
  CHECK(sampler{vocabulary}
            .log_probabilities(s.logits, 20, 1000)
            .value()
            .size() == vocabulary + 1);
}

TEST_CASE("a row of known logits gives these tokens on every machine") {
  scene s;
  std::uint32_t x = 1;
  for (int i = 0; i < 1000; ++i) {
    x = x * 1664525u + 1013904223u;
    s.logits.push_back(static_cast<float>(x >> 20) / 512.0f);
  }
  std::vector<token_id> drawn;
  for (int i = 0; i < 8; ++i) {
    s.params.choice = i;
    drawn.push_back(draw(s));
  }
  CHECK(drawn == std::vector<token_id>{562, 40, 194, 759, 967, 646, 335, 134});
}
