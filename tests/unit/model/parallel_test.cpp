#include "engine/model/parallel_decoder.hpp"
#include "engine/ops/cpu/cpu_backend.hpp"
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

/// Ranks with backends of their own.
struct parallel_model {
  std::vector<std::unique_ptr<ops::backend>> backends;
  std::unique_ptr<model::parallel_decoder> decoder;
  std::string refused; ///< why there is none
};

template <class MakeBackend>
parallel_model load_parallel(const std::filesystem::path& path, int ranks,
                             std::int32_t longest, MakeBackend make) {
  auto file = model::open_checkpoint(path);
  REQUIRE(file.has_value());
  auto config = model::read_model_config(**file, longest);
  REQUIRE(config.has_value());
  parallel_model out;
  std::vector<ops::backend*> backends;
  for (int i = 0; i < ranks; ++i)
    backends.push_back(out.backends.emplace_back(make()).get());
  auto made = model::parallel_decoder::make(**file, *config, backends, limits);
  if (made)
    out.decoder = std::move(*made);
  else
    out.refused = made.error().message;
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
  for (int size : {1, 2, 3, 4}) {
    auto ranks = ops::make_thread_communicators(size);
    REQUIRE(ranks.size() == static_cast<std::size_t>(size));
    for (int n : {1, 5, 1000}) {
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
          for (int again = 0; again < 20; ++again) {
            summed[r] = given[r];
            ranks[r]->all_reduce(summed[r].data(), n);
            ranks[r]->all_gather(given[r].data(), n, 1, gathered[r].data());
          }
        });
      for (auto& one : threads)
        one.join();
      for (int r = 0; r < size; ++r) {
        REQUIRE(ranks[r]->rank() == r);
        CHECK(summed[r] == sums);
        for (int i = 0; i < n; ++i)
          for (int of = 0; of < size; ++of)
            REQUIRE(gathered[r][i * size + of] == given[of][i]);
      }
    }
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
  CHECK(two.decoder->weight_bytes() > whole.decoder->weight_bytes());
  CHECK(two.decoder->weight_bytes() < 2 * whole.decoder->weight_bytes());
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
