#include "cuda/step_graphs.hpp"
#include "tests/unit/cuda/tested_device.hpp"
#include "tests/unit/model/feeding.hpp"
#include "tests/unit/model/reference_file.hpp"

#include <catch2/catch.hpp>

#include <numeric>
#include <random>

using namespace troupe;
using namespace troupe::test;

// Steps that repeat are launched as graphs: with the bits of steps that are
// not, in every number of rows. By the emulator, where a graph is the launches
// with their arguments as they were when it was captured, or by a GPU
// (TROUPE_TEST_DEVICE=cuda).

namespace {

const char* const families[] = {"llama",   "mistral", "qwen2",   "qwen3",
                                "gemma2",  "gemma3",  "phi3",    "smollm3",
                                "granite", "olmo2",   "qwen3moe"};

fed_sequence random_sequence(std::mt19937& random, std::size_t length,
                             std::vector<std::int32_t> table) {
  fed_sequence out;
  for (std::size_t i = 0; i < length; ++i)
    out.ids.push_back(static_cast<token_id>(random() % 90));
  out.table = std::move(table);
  return out;
}

/// Every sequence in steps of several rows, which do not repeat.
std::vector<fed_sequence> expected(engine::model_runner& runner,
                                   std::vector<fed_sequence> of,
                                   std::size_t chunk) {
  for (auto& one : of)
    feed_alone(runner, one, chunk);
  return of;
}

void check_same(const std::vector<fed_sequence>& a,
                const std::vector<fed_sequence>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    REQUIRE(a[i].logits.size() == b[i].logits.size());
    for (std::size_t p = 0; p < a[i].logits.size(); ++p) {
      INFO("sequence " << i << ", position " << p);
      REQUIRE(a[i].logits[p] == b[i].logits[p]);
    }
  }
}

} // namespace

TEST_CASE("in steps that repeat every family gives the bits of those that do "
          "not, whoever joins and leaves") {
  constexpr model::decoder_limits limits{24, 12, 4, 60, 7, 40};
  for (const std::string name : families) {
    INFO(name);
    cuda::emulated_usage usage;
    auto model =
        load_model(reference_folder() / "families" / (name + ".gguf"),
                   make_gpu({.usage = &usage, .is_late = true}), limits);
    std::mt19937 random{5};
    const bool is_first = name == families[0];
    std::vector<fed_sequence> all;
    for (std::int32_t i = 0; i < (is_first ? 7 : 3); ++i)
      all.push_back(random_sequence(random, is_first ? 12 : 5,
                                    {3 * i, 59 - i, 3 * i + 1, 3 * i + 2}));
    const auto whole = expected(*model.decoder, all, 12);
    CHECK(usage.replays == 0);
    const auto allocations = usage.allocations;
    const auto read = model.decoder->weight_bytes_read();
    std::size_t steps = 0;
    for (;;) { // some that are not done, one token each
      std::vector<portion> step;
      for (auto& one : all)
        if (one.done < one.ids.size() && random() % 4 > 0)
          step.push_back({&one, 1});
      if (!step.empty()) {
        feed(*model.decoder, step);
        ++steps;
      } else if (std::all_of(all.begin(), all.end(), [](auto& one) {
                   return one.done == one.ids.size();
                 })) {
        break;
      }
    }
    check_same(all, whole);
    CHECK(usage.allocations == allocations);
    if (on_gpu())
      continue;                                  // it does not count
    CHECK(usage.captures >= (is_first ? 3 : 2)); // for numbers of rows
    CHECK(usage.replays > steps / 3);
    // Each weight is read once per step, however it is launched; of experts,
    // those that so many rows may choose.
    feed(*model.decoder, {});
    const auto per_step = (model.decoder->weight_bytes_read() - read) / steps;
    if (name != "qwen3moe")
      CHECK(model.decoder->weight_bytes_read() - read == per_step * steps);
    CHECK(per_step <= model.decoder->weight_bytes());
    CHECK(per_step > model.decoder->weight_bytes() / 2);
  }
}

TEST_CASE("a decoding step is a few launches a layer") {
  if (on_gpu())
    return; // it does not count
  struct counted {
    const char* family;
    /// q/k/v, attention, output, gate/up and what comes down; of a mixture its
    /// norm, the scores and five; of Gemma two more norms, whose rows are
    /// added.
    std::size_t of_layer;
    std::size_t others; ///< embeddings (which Gemma scales) and logits
  };
  for (auto [family, of_layer, others] : {counted{"llama", 5, 2},
                                          {"qwen2", 5, 2},
                                          {"qwen3", 5, 2},
                                          {"qwen3moe", 10, 2},
                                          {"gemma3", 9, 3}}) {
    INFO(family);
    cuda::emulated_usage usage;
    auto model = load_model(reference_folder() / "families" /
                                (std::string{family} + ".gguf"),
                            make_gpu({.usage = &usage}));
    std::mt19937 random{7};
    auto one = random_sequence(random, 5, {1, 2, 3});
    feed_alone(*model.decoder, one, 4); // 4 rows, then one
    const auto before = usage.launches;
    one.ids.push_back(3);
    feed(*model.decoder, {{&one, 1}});
    const auto layers = static_cast<std::size_t>(model.config.layers);
    CHECK(usage.launches - before == layers * of_layer + others);
  }
}

TEST_CASE("a graph goes on while contexts grow, also over parts of attention") {
  constexpr std::size_t length = 266;
  constexpr model::decoder_limits limits{128, 128, 16, 140, 4, 1100};
  cuda::emulated_usage usage;
  auto model = load_model(
      reference_folder() / "families/llama.gguf",
      make_gpu({.blocks_wanted = 1'000'000, .usage = &usage, .is_late = true}),
      limits, 1100);
  std::mt19937 random{6};
  std::vector<std::int32_t> table(65), other(3);
  for (std::int32_t i = 0; i < 65; ++i)
    table[i] = 100 - i;
  other = {120, 130, 139};
  std::vector<fed_sequence> all{random_sequence(random, length, table),
                                random_sequence(random, 40, other)};
  const auto whole = expected(*model.decoder, all, 128);
  // The last positions once more, over the same keys and values.
  for (auto& one : all)
    one.done = one.ids.size() - 16;
  CHECK(usage.replays == 0);
  const auto before = usage.launches;
  for (int i = 0; i < 16; ++i)
    feed(*model.decoder, {{&all[0], 1}, {&all[1], 1}});
  for (std::size_t s = 0; s < 2; ++s)
    for (std::size_t i = 0; i < 16; ++i) {
      INFO("sequence " << s << ", position " << i << " of the last");
      REQUIRE(all[s].logits[i] == *(whole[s].logits.end() - 16 + i));
    }
  if (!on_gpu()) {
    CHECK(usage.captures == 2);     // one and two parts
    CHECK(usage.replays == 16 - 2); // but for the first of each
    CHECK(usage.launches - before == 16 * (2 * 5 + 2)); // of two layers
  }
}

TEST_CASE("where no graph can be made steps run as they are, and where rows "
          "keep the device busy contexts of all lengths have one") {
  if (on_gpu())
    return; // it says itself what it wants, and can make graphs
  const bool has_no_graphs = GENERATE(true, false);
  constexpr std::size_t length = 266;
  cuda::emulated_usage usage;
  auto model = load_model(reference_folder() / "families/llama.gguf",
                          make_gpu({.blocks_wanted = 1,
                                    .usage = &usage,
                                    .has_no_graphs = has_no_graphs,
                                    .is_late = true}),
                          {128, 128, 16, 70, 4, 1100}, 1100);
  std::mt19937 random{7};
  std::vector<std::int32_t> table(65);
  std::iota(table.begin(), table.end(), 0);
  std::vector<fed_sequence> all{random_sequence(random, length, table)};
  const auto whole = expected(*model.decoder, all, 128);
  all[0].done = all[0].ids.size() - 16;
  for (int i = 0; i < 16; ++i)
    feed(*model.decoder, {{&all[0], 1}});
  for (std::size_t i = 0; i < 16; ++i)
    REQUIRE(all[0].logits[i] == *(whole[0].logits.end() - 16 + i));
  CHECK(usage.captures == (has_no_graphs ? 0 : 1));
  CHECK(usage.replays == (has_no_graphs ? 0 : 15));
}

TEST_CASE("rows are padded to few numbers, and to no more than there are") {
  std::vector<std::int64_t> to;
  for (std::int64_t rows = 1; rows <= 19; ++rows)
    to.push_back(model::padded_rows(rows, 19));
  CHECK(to == std::vector<std::int64_t>{1, 2, 4, 4, 8, 8, 8, 8, 16, 16, 16, 16,
                                        16, 16, 16, 16, 19, 19, 19});
  CHECK(model::padded_rows(5, 6) == 6);
}

namespace {

/// Says what was done with which graph.
struct noting_device {
  using graph = int;
  graph capture(const std::function<void()>& calls) {
    calls();
    return ++captured;
  }
  void launch(const graph& what) {
    launched.push_back(what);
  }
  int captured = 0;
  std::vector<int> launched;
};

} // namespace

TEST_CASE("the graphs that were used last are kept, as many as may be") {
  noting_device device;
  cuda::step_graphs<noting_device> graphs{device};
  int calls = 0;
  auto run = [&](std::int64_t rows, std::int32_t parts) {
    return graphs.run({rows, parts}, [&] { ++calls; });
  };
  CHECK(run(1, 1)); // as it is
  CHECK(device.launched.empty());
  CHECK(run(1, 1)); // captured
  CHECK_FALSE(run(1, 1));
  CHECK(device.launched == std::vector{1, 1});
  CHECK(run(1, 2)); // another kind
  CHECK(calls == 3);
  for (std::int64_t rows = 2; rows < 64; ++rows)
    CHECK(run(rows, 1));
  CHECK_FALSE(run(1, 1)); // there still, and used last now
  CHECK(run(64, 1));      // (1, 2) goes
  CHECK_FALSE(run(1, 1));
  CHECK(run(2, 1));
  CHECK(device.captured == 2);
  CHECK(run(1, 2));
  CHECK(device.captured == 2); // it begins anew
}
