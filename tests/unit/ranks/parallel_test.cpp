#include "engine/model/plan_record.hpp"
#include "engine/model/rank_runner.hpp"
#include "engine/ops/cpu/sizing_backend.hpp"
#include "engine/ops/dense_layout.hpp"
#include "tests/unit/model/feeding.hpp"
#include "tests/unit/model/naive_backend.hpp"
#include "tests/unit/model/reference_file.hpp"
#include "tests/unit/model/zero_model.hpp"
#include "tests/unit/ranks/parallel_model.hpp"
#include "tests/unit/ranks/rank_kinds.hpp"
#include "tests/unit/weights/model_directory.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <thread>

using namespace troupe;
using namespace troupe::test;

namespace {

float worst_of(const fed_sequence& got, const reference_sequence& expected,
               std::size_t top_k) {
  float worst = 0;
  for (std::size_t i = 0; i < got.logits.size(); ++i)
    for (std::size_t k = 0; k < top_k; ++k)
      worst =
          std::max(worst, std::abs(got.logits[i][expected.best[i * top_k + k]] -
                                   expected.logits[i * top_k + k]));
  return worst;
}

/// A small model of random weights: the committed ones of some families have
/// numbers of heads that are not even.
std::filesystem::path random_file(const std::string& name,
                                  model_directory& folder) {
  auto builder = zero_model(name, 4);
  std::mt19937 random{7};
  std::normal_distribution<float> normal;
  for (auto& tensor : builder.tensors) {
    std::vector<float> values(tensor.data.size() / sizeof(float));
    for (auto& x : values)
      x = 0.5f * normal(random);
    std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
  }
  builder.string("tokenizer.ggml.model", "gpt2");
  return folder.write("model.gguf", builder.build());
}

} // namespace

TEST_CASE("a plan comes to other ranks as it is") {
  engine::step_plan plan;
  plan.tokens = {7, 0, 31'999};
  plan.positions = {3, 4, 0};
  plan.sequences = {0, 0, 1};
  plan.logit_rows = {1, 2};
  plan.prompt_rows = 2;
  plan.tables = {{5, 9}, {}, {0}};
  ops::draw_plan draws;
  draws.rows.resize(2);
  draws.rows[1].fraction = 0.25;
  draws.rows[1].mask = 0;
  draws.changes = {{.id = 3, .what = 1, .bias = 2}};
  draws.masks = {5, 6};
  const ops::draw_plan* const none = nullptr;
  for (const auto* with : {none, static_cast<const ops::draw_plan*>(&draws)}) {
    std::vector<std::byte> bytes;
    model::encode(plan, with, bytes);
    auto back = model::decode_step(bytes);
    REQUIRE(back.has_value());
    CHECK(back->plan.tokens == plan.tokens);
    CHECK(back->plan.positions == plan.positions);
    CHECK(back->plan.sequences == plan.sequences);
    CHECK(back->plan.logit_rows == plan.logit_rows);
    CHECK(back->plan.prompt_rows == plan.prompt_rows);
    CHECK(back->plan.tables == plan.tables);
    REQUIRE(back->draws.has_value() == (with != nullptr));
    if (with != nullptr) {
      REQUIRE(back->draws->rows.size() == 2);
      CHECK(back->draws->rows[1].fraction == 0.25);
      CHECK(back->draws->rows[1].mask == 0);
      REQUIRE(back->draws->changes.size() == 1);
      CHECK(back->draws->changes[0].bias == 2);
      CHECK(back->draws->masks == draws.masks);
    }
    for (std::size_t n = 0; n < bytes.size(); ++n)
      CHECK_FALSE(model::decode_step(std::span{bytes}.first(n)).has_value());
    bytes.push_back(std::byte{0});
    CHECK_FALSE(model::decode_step(bytes).has_value());
    bytes.assign(64, std::byte{0xff}); // lists longer than what there is
    CHECK_FALSE(model::decode_step(bytes).has_value());
  }
  draws.rows.resize(1); // of two
  std::vector<std::byte> bytes;
  model::encode(plan, &draws, bytes);
  CHECK_FALSE(model::decode_step(bytes).has_value());
}

TEST_CASE("ranks over sockets give the bits of ranks that are threads") {
  const auto reference = read_reference("families/qwen2.ref");
  const auto& ids = reference.sequences.front().ids;
  for (int size : {2, 4}) {
    auto left = load_parallel(family_file("qwen2"), size, 0, make_cpu);
    auto right =
        load_parallel(family_file("qwen2"), size, 0, make_cpu, over_sockets());
    REQUIRE(left.decoder != nullptr);
    REQUIRE(right.decoder != nullptr);
    fed_sequence one{ids, {4, 0, 7, 2}, 0, {}}, two = one;
    feed_alone(*left.decoder, one, 64);
    feed_alone(*right.decoder, two, 5);
    CHECK((one.logits == two.logits));
  }
}

TEST_CASE("what a rank takes is known before it is loaded") {
  for (int size : {2, 4}) {
    auto file = model::open_checkpoint(family_file("llama"));
    REQUIRE(file.has_value());
    auto config = model::read_model_config(**file, 0);
    REQUIRE(config.has_value());
    auto sizes = ops::cpu::make_sizing_backend();
    auto rank = ops::make_sizing_communicator(size);
    auto planned =
        model::decoder_size(**file, *config, *sizes, limits, rank.get());
    auto block = model::kv_block_bytes(*config, *sizes, limits.kv_block_tokens,
                                       rank.get());
    auto loaded = load_parallel(family_file("llama"), size, 0, make_cpu);
    REQUIRE(planned.has_value());
    REQUIRE(loaded.decoder != nullptr);
    CHECK(planned->weights == loaded.first_bytes);
    CHECK(planned->weights == loaded.others[0]->weight_bytes());
    CHECK(planned->kv_cache == loaded.others[0]->kv_cache_bytes());
    CHECK(planned->kv_cache == *block * limits.kv_blocks);
  }
}

TEST_CASE("ranks give the reference's logits in every family that can be "
          "divided") {
  std::set<std::string> divided;
  for (const std::string name : {"llama", "mistral", "qwen2", "qwen3", "gemma2",
                                 "gemma3", "phi3", "granite"})
    for (int ranks : {2, 4}) {
      INFO(name << ", " << ranks << " ranks");

      const auto reference = read_reference("families/" + name + ".ref");
      const auto& expected = reference.sequences.front();
      const auto longest = static_cast<std::int32_t>(expected.ids.size());
      auto naive = load_parallel(family_file(name), ranks, longest,
                                 [] { return make_naive_backend(); });
      if (naive.decoder == nullptr)
        continue; // the number of heads says no
      divided.insert(name + "/" + std::to_string(ranks));
      fed_sequence exact{expected.ids, {4, 0, 7, 2}, 0, {}};
      feed_alone(*naive.decoder, exact, 64);
      CHECK(worst_of(exact, expected, reference.top_k) < 1e-4f);

      // On the CPU, and a row's bits are its own in any company.
      auto some = load_parallel(family_file(name), ranks, longest, make_cpu);
      REQUIRE(some.decoder != nullptr);
      fed_sequence whole{expected.ids, {4, 0, 7, 2}, 0, {}};
      feed_alone(*some.decoder, whole, 64);
      // As for one process (tests/unit/model/family_test.cpp).
      CHECK(worst_of(whole, expected, reference.top_k) < 0.25f);
      fed_sequence batched{expected.ids, {3, 1, 6, 5}, 0, {}};
      fed_sequence other{
          {expected.ids.rbegin(), expected.ids.rend()}, {2, 0, 7, 4}, 0, {}};
      feed(*some.decoder, {{&other, 19}});
      feed(*some.decoder, {{&other, 1}, {&batched, 11}});
      while (batched.done < batched.ids.size() / 2)
        feed(*some.decoder, {{&other, 1}, {&batched, 1}});
      CHECK(std::equal(batched.logits.begin(), batched.logits.end(),
                       whole.logits.begin()));
    }
  CHECK(divided == std::set<std::string>{"gemma2/2", "gemma2/4", "gemma3/2",
                                         "granite/2", "granite/4", "llama/2",
                                         "llama/4", "mistral/2", "mistral/4",
                                         "phi3/2", "qwen2/2", "qwen2/4",
                                         "qwen3/2", "qwen3/4"});
}

TEST_CASE("ranks on devices give the reference's logits in every family that "
          "can be divided") {
  const auto kind = device_kind();
  std::set<std::string> divided;
  for (const std::string name : {"llama", "mistral", "qwen2", "qwen3", "gemma2",
                                 "gemma3", "phi3", "granite"})
    for (int ranks : {2, 4}) {
      if (ranks == 4 && name != "llama" && !on_gpu())
        continue; // the emulator is slow
      INFO(name << ", " << ranks << " ranks of " << kind.name);
      const auto reference = read_reference("families/" + name + ".ref");
      const auto& expected = reference.sequences.front();
      const auto longest = static_cast<std::int32_t>(expected.ids.size());
      auto some =
          load_parallel(family_file(name), ranks, longest, make_cpu, kind);
      if (some.decoder == nullptr)
        continue; // the number of heads says no
      divided.insert(name + "/" + std::to_string(ranks));
      // Of it the first tokens, for one family all of them.
      auto ids = expected.ids;
      if (name != "llama" && !on_gpu())
        ids.resize(std::min<std::size_t>(ids.size(), 10));
      fed_sequence whole{ids, {4, 0, 7, 2}, 0, {}};
      feed_alone(*some.decoder, whole, 64);
      // As for one device (tests/unit/cuda/backend_test.cpp).
      CHECK(worst_of(whole, expected, reference.top_k) <
            (some.decoder->has_roles() ? 0.15f : 0.02f));

      // A row alone is that row in a batch.
      fed_sequence batched{ids, {3, 1, 6, 5}, 0, {}};
      fed_sequence other{{ids.rbegin(), ids.rend()}, {2, 0, 7, 4}, 0, {}};
      feed(*some.decoder, {{&other, 6}});
      feed(*some.decoder, {{&other, 1}, {&batched, 7}});
      for (int step = 0; step < 3; ++step)
        feed(*some.decoder, {{&other, 1}, {&batched, 1}});
      CHECK(std::equal(batched.logits.begin(), batched.logits.end(),
                       whole.logits.begin()));
    }
  CHECK(divided.size() == (on_gpu() ? 14 : 9));
}

TEST_CASE("moved between emulated devices or not, ranks give the same bits",
          "[emulated]") {
  const auto reference = read_reference("families/qwen2.ref");
  auto ids = reference.sequences.front().ids;
  ids.resize(10);
  for (int size : {2, 4}) {
    auto left = load_parallel(
        family_file("qwen2"), size, 0,
        [] { return cuda::make_emulated_backend(); }, threads_of_a_process());
    fed_sequence one{ids, {4, 0, 7, 2}, 0, {}};
    feed_alone(*left.decoder, one, 64);
    for (const auto& kind : {emulated_devices(), emulated_devices_apart(),
                             made_up_nccl(), made_up_nccl(true)}) {
      INFO(kind.name << ", " << size);
      auto right = load_parallel(family_file("qwen2"), size, 0, make_cpu, kind);
      fed_sequence two{ids, {4, 0, 7, 2}, 0, {}};
      feed_alone(*right.decoder, two, 5);
      CHECK((one.logits == two.logits));
    }
  }
}

TEST_CASE("logits that a rank which is gone had no part in are given to nobody",
          "[emulated]") {
  made_up(); // is found instead of NCCL
  auto group = std::make_shared<ops::thread_group>(2);
  auto ranks = on_threads(
      2, [&](std::int32_t rank) { return make_rank_by_nccl(group, rank); });
  auto file = model::open_checkpoint(family_file("qwen2"));
  auto config = model::read_model_config(**file, 0);
  auto own = model::decoder::make(**file, *config, *ranks[0].backend, limits,
                                  {}, ranks[0].ranks.get());
  model::rank_runner runner{std::move(own.value()), *ranks[0].ranks};
  // The other takes part in all but the last of the step.
  std::thread other{[&] {
    auto& to = *ranks[1].ranks;
    std::vector<std::byte> plan;
    to.broadcast(plan);
    auto x = ranks[1].backend->allocate(config->embedding);
    for (int layer = 0; layer < config->layers; ++layer)
      for (int sum = 0; sum < 2; ++sum)
        to.all_reduce(x->data(), x->size());
    while (made_up().waiting() == 0)
      std::this_thread::yield();
    group->end("rank 1: it is broken");
  }};
  engine::step_plan plan;
  plan.tokens = {3};
  plan.positions = {0};
  plan.sequences = {0};
  plan.tables = {{0}};
  plan.logit_rows = {0};
  runner.submit(plan);
  CHECK_THROWS_WITH(runner.collect(), "rank 1: it is broken");
  other.join();
}

TEST_CASE("a rank's emulated GPU holds what was planned, and steps allocate "
          "none",
          "[emulated]") {
  model_directory folder;
  for (const std::string name :
       {"llama", "qwen2", "gemma2", "granite", "qwen3moe"})
    for (int size : {2, 4}) {
      const bool has_experts = name == "qwen3moe";
      if (has_experts && size == 4)
        continue; // it has six tokens
      INFO(name << ", " << size);
      const auto path =
          has_experts ? random_file(name, folder) : family_file(name);
      std::vector<cuda::emulated_usage> usage(size);
      const rank_kind counted{
          "counted", false, [&](std::int32_t ranks, const backend_maker&) {
            auto group = std::make_shared<ops::thread_group>(ranks);
            std::vector<one_rank> out;
            for (std::int32_t r = 0; r < ranks; ++r) {
              auto made =
                  cuda::make_emulated_rank(group, r, {.usage = &usage[r]});
              out.push_back({std::move(made.backend), std::move(made.ranks)});
            }
            return out;
          }};
      auto file = model::open_checkpoint(path);
      auto config = model::read_model_config(**file, 0);
      auto sizes = ops::cpu::make_sizing_backend(ops::cpu::kept_by::gpu);
      auto rank = ops::make_sizing_communicator(size, true);
      constexpr model::decoder_limits within{8, 8, 4, 8, 2, 20};
      auto planned =
          model::decoder_size(**file, *config, *sizes, within, rank.get());
      REQUIRE(planned.has_value());
      auto loaded = load_parallel(path, size, 0, make_cpu, counted, within);
      REQUIRE(loaded.decoder != nullptr);
      const auto all = planned->weights + planned->kv_cache +
                       planned->workspace + ops::gpu_workspace_bytes;
      std::size_t before = 0;
      for (int r = 0; r < size; ++r) {
        INFO("rank " << r);
        CHECK(usage[r].bytes == all);
        CHECK(usage[r].bytes_most == usage[r].bytes);
        before += usage[r].allocations;
      }
      fed_sequence one{{1, 2, 3, 4, 5, 0, 1, 2}, {0, 1}, 0, {}};
      feed_alone(*loaded.decoder, one, 8);
      fed_sequence two{{1, 2, 3, 4, 5, 0, 1, 2}, {2, 3}, 0, {}};
      feed_alone(*loaded.decoder, two, 3);
      std::size_t after = 0;
      for (const auto& rank_usage : usage)
        after += rank_usage.allocations;
      CHECK(after == before);
    }
}

TEST_CASE("ranks give what the whole model gives, with experts too") {
  for (const std::string name : {"qwen3moe", "smollm3"}) {
    model_directory folder;
    const auto file = random_file(name, folder);
    auto make = [] { return make_naive_backend(); };
    auto whole = load_model(file, make(), limits);
    fed_sequence right{{0, 3, 5, 1, 2, 4, 4, 0, 1, 5}, {4, 0, 7, 2}, 0, {}};
    const auto begun = right;
    feed_alone(*whole.decoder, right, 4);
    for (const auto& kind : {threads_of_a_process(), device_kind()}) {
      INFO(name << ", " << kind.name);
      auto two = load_parallel(file, 2, 0, make, kind);
      INFO(two.refused);
      REQUIRE(two.decoder != nullptr);
      auto left = begun, single = begun;
      feed_alone(*two.decoder, left, 4);
      float worst = 0, most = 0;
      for (std::size_t i = 0; i < left.logits.size(); ++i)
        for (std::size_t k = 0; k < left.logits[i].size(); ++k) {
          worst =
              std::max(worst, std::abs(left.logits[i][k] - right.logits[i][k]));
          most = std::max(most, std::abs(right.logits[i][k]));
        }
      CHECK(most > 0.1f);
      // A device keeps keys and values in f16.
      CHECK(worst < (kind.is_host ? 1e-4f : 1e-2f) * most);
      single.table = {1, 3};
      feed_alone(*two.decoder, single, 1);
      CHECK((single.logits == left.logits));
    }
  }
}

TEST_CASE("one rank alone is the model itself, bit for bit") {
  const auto reference = read_reference("families/qwen2.ref");
  const auto& ids = reference.sequences.front().ids;
  auto one = load_parallel(family_file("qwen2"), 1, 0, make_cpu);
  REQUIRE(one.decoder != nullptr);
  auto plain = load_model(family_file("qwen2"), make_cpu(), limits);
  fed_sequence left{ids, {4, 0, 7, 2}, 0, {}}, right = left;
  feed_alone(*one.decoder, left, 64);
  feed_alone(*plain.decoder, right, 64);
  CHECK((left.logits == right.logits));
}

TEST_CASE("the ranks' weights are the model's, but for what all have") {
  auto whole = load_model(family_file("llama"), make_cpu(), limits);
  auto two = load_parallel(family_file("llama"), 2, 0, make_cpu);
  REQUIRE(two.decoder != nullptr);
  CHECK(two.weight_bytes() > whole.decoder->weight_bytes());
  CHECK(two.weight_bytes() < 2 * whole.decoder->weight_bytes());
}

TEST_CASE("what cannot be divided is refused by name") {
  struct row {
    std::string file;
    int ranks;
    std::string expected;
  };
  for (const auto& one :
       {row{"families/olmo2.gguf", 2, "olmo2 norms all heads together"},
        row{"families/llama.gguf", 3, "heads cannot be divided by 3"},
        row{"families/llama.gguf", 16, "cannot be divided by 16"}}) {
    INFO(one.file << ", " << one.ranks);
    auto none =
        load_parallel(reference_folder() / one.file, one.ranks, 0, make_cpu);
    CHECK(none.decoder == nullptr);
    INFO(none.refused);
    CHECK(none.refused.find("tensor_parallel_size") == 0);
    CHECK(none.refused.find(one.expected) != std::string::npos);
  }
}
