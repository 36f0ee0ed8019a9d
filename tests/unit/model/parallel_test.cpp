#include "engine/model/plan_record.hpp"
#include "engine/model/rank_runner.hpp"
#include "engine/ops/cpu/cpu_backend.hpp"
#include "engine/ops/cpu/sizing_backend.hpp"
#include "engine/ops/gloo/gloo_communicator.hpp"
#include "tests/unit/model/feeding.hpp"
#include "tests/unit/model/naive_backend.hpp"
#include "tests/unit/model/reference_file.hpp"
#include "tests/unit/model/zero_model.hpp"
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

constexpr model::decoder_limits limits{64, 64, 16, 8};

using rank_list = std::vector<std::unique_ptr<ops::communicator>>;

/// Over sockets, though all are in this process.
rank_list make_gloo_communicators(std::int32_t size) {
  std::shared_ptr<ops::rank_meeting> meeting = ops::make_local_meeting();
  rank_list out(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (std::int32_t rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      out[rank] =
          ops::connect_ranks({.rank = rank, .size = size}, meeting).value();
    });
  for (auto& one : threads)
    one.join();
  return out;
}

struct kind_of_ranks {
  const char* name;
  rank_list (*make)(std::int32_t size);
};

constexpr kind_of_ranks threads_of_a_process{"threads",
                                             &ops::make_thread_communicators};
constexpr kind_of_ranks over_sockets{"sockets", &make_gloo_communicators};

/// Ranks with backends and threads of their own.
struct parallel_model {
  parallel_model() = default;
  parallel_model(parallel_model&&) = default;

  ~parallel_model() {
    decoder.reset(); // ends the others
    for (auto& one : threads)
      one.join();
  }

  std::uint64_t weight_bytes() const {
    std::uint64_t out = first_bytes;
    for (const auto& one : others)
      out += one->weight_bytes();
    return out;
  }

  rank_list ranks;
  std::vector<std::unique_ptr<ops::backend>> backends;
  std::unique_ptr<model::rank_runner> decoder;
  std::uint64_t first_bytes = 0;
  std::vector<std::unique_ptr<model::decoder>> others;
  std::vector<std::thread> threads;
  std::string refused; ///< why there is none
};

template <class MakeBackend>
parallel_model load_parallel(const std::filesystem::path& path, int ranks,
                             std::int32_t longest, MakeBackend make,
                             kind_of_ranks kind = threads_of_a_process) {
  auto file = model::open_checkpoint(path);
  REQUIRE(file.has_value());
  auto config = model::read_model_config(**file, longest);
  REQUIRE(config.has_value());
  parallel_model out;
  out.ranks = kind.make(ranks);
  std::vector<std::unique_ptr<model::decoder>> made;
  for (auto& rank : out.ranks) {
    auto& backend = *out.backends.emplace_back(make());
    auto one =
        model::decoder::make(**file, *config, backend, limits, {}, rank.get());
    if (!one) {
      out.refused = one.error().message;
      return out;
    }
    made.push_back(std::move(*one));
  }
  out.first_bytes = made[0]->weight_bytes();
  out.decoder =
      std::make_unique<model::rank_runner>(std::move(made[0]), *out.ranks[0]);
  for (std::size_t i = 1; i < made.size(); ++i) {
    auto& own = *out.others.emplace_back(std::move(made[i]));
    out.threads.emplace_back(
        [&own, to = out.ranks[i].get()] { model::follow(own, *to).value(); });
  }
  return out;
}

std::unique_ptr<ops::backend> cpu() {
  return ops::cpu::make_backend({1, {}}).value();
}

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

std::filesystem::path family_file(const std::string& name) {
  return reference_folder() / "families" / (name + ".gguf");
}

} // namespace

TEST_CASE("ranks add up in their order, and give all what each has") {
  for (auto kind : {threads_of_a_process, over_sockets})
    for (int size : {1, 2, 3, 4}) {
      INFO(kind.name << ", " << size);
      auto ranks = kind.make(size);
      REQUIRE(ranks.size() == static_cast<std::size_t>(size));
      for (int n : {1, 5, 1000, 40'001}) {
        std::mt19937 random{static_cast<unsigned>(n + size)};
        std::normal_distribution<float> normal;
        std::vector<std::vector<float>> given(size, std::vector<float>(n));
        for (auto& one : given)
          for (auto& x : one)
            x = normal(random) * std::exp(normal(random) * 5);
        auto sums = given[0];
        for (int r = 1; r < size; ++r)
          for (int i = 0; i < n; ++i)
            sums[i] += given[r][i];
        auto summed = given;
        std::vector<std::vector<float>> gathered(
            size, std::vector<float>(static_cast<std::size_t>(n) * size));
        std::vector<std::thread> threads;
        for (int r = 0; r < size; ++r)
          threads.emplace_back([&, r] {
            for (int again = 0; again < 5; ++again) {
              summed[r] = given[r];
              ranks[r]->all_reduce(summed[r].data(), n);
              ranks[r]->all_gather(given[r].data(), n, 1, gathered[r].data());
            }
          });
        for (auto& one : threads)
          one.join();
        for (int r = 0; r < size; ++r) {
          REQUIRE(ranks[r]->rank() == r);
          CHECK((summed[r] == sums));
          for (int i = 0; i < n; ++i)
            for (int of = 0; of < size; ++of)
              REQUIRE(gathered[r][i * size + of] == given[of][i]);
        }
      }
    }
}

TEST_CASE("rank 0's bytes come to all, and all hear what each says") {
  for (auto kind : {threads_of_a_process, over_sockets})
    for (int size : {1, 2, 3, 4}) {
      INFO(kind.name << ", " << size);
      auto ranks = kind.make(size);
      std::vector<std::vector<std::size_t>> lengths(size);
      std::vector<std::vector<std::string>> heard(size);
      std::vector<std::thread> threads;
      for (int r = 0; r < size; ++r)
        threads.emplace_back([&, r] {
          for (std::size_t n : {0, 1, 70'000, 3}) {
            std::vector<std::byte> bytes;
            if (r == 0)
              bytes.assign(n, std::byte{42});
            ranks[r]->broadcast(bytes);
            if (std::count(bytes.begin(), bytes.end(), std::byte{42}) ==
                static_cast<std::ptrdiff_t>(bytes.size()))
              lengths[r].push_back(bytes.size());
          }
          ranks[r]->tell_all("");
          heard[r] = ranks[r]->tell_all(r == 1 ? "" : std::string(r + 1, 'x'));
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
  auto ranks = make_gloo_communicators(3);
  ranks[1].reset();
  float x = 1;
  CHECK_THROWS_AS(ranks[0]->all_reduce(&x, 1), ops::rank_lost);
  std::vector<std::byte> none;
  ranks[0].reset();
  CHECK_THROWS_AS(ranks[2]->broadcast(none), ops::rank_lost);
}

TEST_CASE("a plan comes to other ranks as it is") {
  engine::step_plan plan;
  plan.tokens = {7, 0, 31'999};
  plan.positions = {3, 4, 0};
  plan.sequences = {0, 0, 1};
  plan.logit_rows = {1, 2};
  plan.prompt_rows = 2;
  plan.tables = {{5, 9}, {}, {0}};
  std::vector<std::byte> bytes;
  model::encode(plan, bytes);
  auto back = model::decode_step_plan(bytes);
  REQUIRE(back.has_value());
  CHECK(back->tokens == plan.tokens);
  CHECK(back->positions == plan.positions);
  CHECK(back->sequences == plan.sequences);
  CHECK(back->logit_rows == plan.logit_rows);
  CHECK(back->prompt_rows == plan.prompt_rows);
  CHECK(back->tables == plan.tables);
  for (std::size_t n = 0; n < bytes.size(); ++n)
    CHECK_FALSE(model::decode_step_plan(std::span{bytes}.first(n)).has_value());
  bytes.push_back(std::byte{0});
  CHECK_FALSE(model::decode_step_plan(bytes).has_value());
  bytes.assign(64, std::byte{0xff}); // lists longer than what there is
  CHECK_FALSE(model::decode_step_plan(bytes).has_value());
}

TEST_CASE("ranks over sockets give the bits of ranks that are threads") {
  const auto reference = read_reference("families/qwen2.ref");
  const auto& ids = reference.sequences.front().ids;
  for (int size : {2, 4}) {
    auto left = load_parallel(family_file("qwen2"), size, 0, cpu);
    auto right =
        load_parallel(family_file("qwen2"), size, 0, cpu, over_sockets);
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
    auto loaded = load_parallel(family_file("llama"), size, 0, cpu);
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
      auto some = load_parallel(family_file(name), ranks, longest, cpu);
      REQUIRE(some.decoder != nullptr);
      fed_sequence whole{expected.ids, {4, 0, 7, 2}, 0, {}};
      feed_alone(*some.decoder, whole, 64);
      CHECK(worst_of(whole, expected, reference.top_k) < 0.05f);
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

TEST_CASE("ranks give what the whole model gives, with experts too") {
  // Of these the committed models have numbers of heads that are not even.
  for (const std::string name : {"qwen3moe", "smollm3"}) {
    INFO(name);
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
    model_directory folder;
    const auto file = folder.write("model.gguf", builder.build());
    auto make = [] { return make_naive_backend(); };
    auto two = load_parallel(file, 2, 0, make);
    INFO(two.refused);
    REQUIRE(two.decoder != nullptr);
    auto whole = load_model(file, make(), limits);
    fed_sequence left{{0, 3, 5, 1, 2, 4, 4, 0, 1, 5}, {4, 0, 7, 2}, 0, {}};
    auto right = left;
    feed_alone(*two.decoder, left, 4);
    feed_alone(*whole.decoder, right, 4);
    float worst = 0, most = 0;
    for (std::size_t i = 0; i < left.logits.size(); ++i)
      for (std::size_t k = 0; k < left.logits[i].size(); ++k) {
        worst =
            std::max(worst, std::abs(left.logits[i][k] - right.logits[i][k]));
        most = std::max(most, std::abs(right.logits[i][k]));
      }
    CHECK(most > 0.1f);
    CHECK(worst < 1e-4f * most);
  }
}

TEST_CASE("one rank alone is the model itself, bit for bit") {
  const auto reference = read_reference("families/qwen2.ref");
  const auto& ids = reference.sequences.front().ids;
  auto one = load_parallel(family_file("qwen2"), 1, 0, cpu);
  REQUIRE(one.decoder != nullptr);
  auto plain = load_model(family_file("qwen2"), cpu(), limits);
  fed_sequence left{ids, {4, 0, 7, 2}, 0, {}}, right = left;
  feed_alone(*one.decoder, left, 64);
  feed_alone(*plain.decoder, right, 64);
  CHECK((left.logits == right.logits));
}

TEST_CASE("the ranks' weights are the model's, but for what all have") {
  auto whole = load_model(family_file("llama"), cpu(), limits);
  auto two = load_parallel(family_file("llama"), 2, 0, cpu);
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
    auto none = load_parallel(reference_folder() / one.file, one.ranks, 0, cpu);
    CHECK(none.decoder == nullptr);
    INFO(none.refused);
    CHECK(none.refused.find("tensor_parallel_size") == 0);
    CHECK(none.refused.find(one.expected) != std::string::npos);
  }
}
