#include "cuda/emulated_backend.hpp"
#include "cuda/kernels/numbers.hpp"
#include "tests/unit/cuda/stored_e4m3.hpp"
#include "tests/unit/cuda/tested_device.hpp"
#include "tests/unit/model/feeding.hpp"
#include "tests/unit/model/naive_backend.hpp"
#include "tests/unit/model/reference_file.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

using namespace troupe;
using namespace troupe::test;

// The GPU's backend by the emulator: shapes of launches, places in memory,
// where threads wait, and what comes out. What only a GPU can show (its own
// expf, races between warps) the same tests show with TROUPE_TEST_DEVICE=cuda
// (scripts/gpu-check.sh).

namespace {

const char* const families[] = {"llama",   "mistral", "qwen2",   "qwen3",
                                "gemma2",  "gemma3",  "phi3",    "smollm3",
                                "granite", "olmo2",   "qwen3moe"};

/// Of logits after so many tokens. Weights of these files are kept as they are,
/// keys and values in f16, which adds up (0.028 after the 92 of smollm3); a
/// library's products read rows rounded to bf16.
float tolerance_of(const ops::backend& backend, std::size_t tokens) {
  if (backend.has_roles())
    return 0.15f;
  return tokens > 16 ? 0.04f : 0.02f;
}

/// What nobody may read, and everybody has to write over.
constexpr float poison = std::numeric_limits<float>::quiet_NaN();

/// Both backends with the same numbers.
struct two_backends {
  /// Blocks that the emulator wants: many, so that each has few outputs.
  explicit two_backends(std::int64_t blocks = 0)
      : gpu(make_gpu({.blocks_wanted = blocks})) {
    // nop
  }

  std::unique_ptr<ops::backend> gpu;
  std::unique_ptr<ops::backend> naive = make_naive_backend();

  /// The greatest difference of what `f(backend)` gives.
  template <class F>
  float difference(F f) {
    auto got = f(*gpu), expected = f(*naive);
    REQUIRE(got.size() == expected.size());
    float worst = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      REQUIRE(std::isfinite(got[i]));
      worst = std::max(worst, std::abs(got[i] - expected[i]));
    }
    return worst;
  }
};

} // namespace

namespace {

/// Numbers as they are kept, of any type that is not quantised.
std::vector<std::byte> stored_as(ops::element_type type,
                                 std::span<const float> values) {
  std::vector<std::byte> out;
  const auto append = [&](const auto& number) {
    const auto bytes = std::as_bytes(std::span{&number, 1});
    out.insert(out.end(), bytes.begin(), bytes.end());
  };
  for (const auto x : values)
    if (type == ops::element_type::f32)
      append(x);
    else if (type == ops::element_type::f16)
      append(cuda::to_f16(x));
    else
      append(cuda::to_bf16(x));
  return out;
}

} // namespace

TEST_CASE("products of odd shapes are right, and a row's bits are its own") {
  two_backends both{GENERATE(0, 1'000'000)};
  for (auto type : {ops::element_type::f32, ops::element_type::f16,
                    ops::element_type::bf16})
    for (auto [outputs, cols] :
         {std::pair{1, 1},
          {3, 7},
          {4, 8},
          {5, 300},
          {130, 264},
          {17, 1025},
          {34, 896},
          {18, 2312}}) { // more tiles than are asked for at once
      const auto bytes =
          stored_as(type, random_floats(outputs * cols, outputs + cols));
      ops::matrix_view view{type, outputs, cols, bytes};
      for (std::int64_t rows : {1, 7, 8, 9, 17, 40, 150}) {
        if (rows > 40 && cols > 300)
          continue;
        INFO("type " << static_cast<int>(type) << ", " << outputs << " x "
                     << cols << ", " << rows << " rows");
        auto x = random_floats(rows * cols, rows);
        auto run = [&](ops::backend& b, std::int64_t first, std::int64_t count,
                       bool add) {
          auto w = b.load({&view, 1}).value();
          auto in = b.upload(std::span{x}.subspan(first * cols, count * cols));
          // What is not added to must not be read.
          auto out = b.upload(
              std::vector<float>(count * outputs, add ? 2.5f : poison));
          b.linear(*w, in->data(), count, out->data(), add);
          return downloaded(b, *out);
        };
        for (bool add : {false, true})
          CHECK(both.difference([&](auto& b) { return run(b, 0, rows, add); }) <
                1e-4f * std::sqrt(static_cast<float>(cols)));
        auto together = run(*both.gpu, 0, rows, false);
        auto alone = run(*both.gpu, rows - 1, 1, false);
        CHECK(std::equal(alone.begin(), alone.end(), together.end() - outputs));
      }
    }
}

TEST_CASE("a product joined with other steps has the bits of one after the "
          "other") {
  enum class kept { as_stored, rounded_to_e4m3, e4m3_in_blocks };
  // Without blocks wanted, many rows are large blocks'.
  const int wanted = GENERATE(0, 1'000'000);
  two_backends both{wanted};
  const auto how_kept =
      GENERATE(kept::as_stored, kept::rounded_to_e4m3, kept::e4m3_in_blocks);
  for (auto type : {ops::element_type::f32, ops::element_type::f16,
                    ops::element_type::bf16})
    for (auto [outputs, cols] :
         {std::pair{2, 7}, {34, 264}, {34, 2312}, {130, 300}}) {
      if (how_kept != kept::as_stored && type != ops::element_type::bf16)
        continue;
      const auto bytes =
          stored_as(type, random_floats(outputs * cols, outputs + cols));
      // Scaled so that gates are neither open nor closed.
      const auto blocks =
          random_e4m3(outputs, cols, outputs + cols, true).scaled(0x1p-9f);
      auto view = how_kept == kept::e4m3_in_blocks
                      ? blocks.view()
                      : ops::matrix_view{type, outputs, cols, bytes};
      view.as_e4m3 = how_kept == kept::rounded_to_e4m3;
      for (std::int64_t rows : {1, 8, 9, 17, 40, 70}) {
        if ((wanted == 0) != (rows == 70))
          continue;
        INFO("type " << static_cast<int>(type) << ", kept "
                     << static_cast<int>(how_kept) << ", " << outputs << " x "
                     << cols << ", " << rows << " rows");
        // Far from 1, so that a norm matters, each row in its own way.
        auto x = random_floats(rows * cols, rows);
        for (std::size_t i = 0; i < x.size(); ++i)
          x[i] *= std::ldexp(1.0f, static_cast<int>(i / cols % 7) - 6);
        const auto there = random_floats(rows * outputs, rows + 2);
        const auto added = random_floats(outputs, rows + 1);
        const auto weights = random_floats(cols, rows + 3);
        const auto n = outputs / 2;
        struct steps {
          bool is_normed, adds, is_biased;
          std::optional<ops::gate> gated;
        };
        // With the norm always part of the product: its factor comes last.
        const auto run = [&](ops::backend& b, const steps& of, bool at_once,
                             std::int64_t first, std::int64_t count) {
          auto w = b.load({&view, 1}).value();
          auto in = b.upload(std::span{x}.subspan(first * cols, count * cols));
          auto bias = b.upload(added), norm = b.upload(weights);
          auto normed = b.upload(std::vector<float>(count * cols, poison));
          auto products = b.upload(std::vector<float>(count * outputs, poison));
          auto out = b.upload(
              of.adds ? std::vector(there.begin() + first * outputs,
                                    there.begin() + (first + count) * outputs)
                      : std::vector<float>(count * (of.gated ? n : outputs),
                                           poison));
          ops::joined_steps with;
          with.norm = of.is_normed ? norm.get() : nullptr;
          with.epsilon = 1e-5f;
          with.normed = normed->data();
          with.adds = of.adds;
          with.products = products->data();
          if (at_once) {
            with.bias = of.is_biased ? bias.get() : nullptr;
            with.gated = of.gated;
            b.linear_joined(*w, in->data(), count, with, out->data());
            return downloaded(b, *out);
          }
          auto& to = of.gated ? *products : *out;
          b.linear_joined(*w, in->data(), count, with, to.data());
          if (of.is_biased)
            b.add_bias(to.data(), *bias, count, outputs);
          if (of.gated)
            b.multiply_gates(*of.gated, to.data(), count, n, out->data());
          return downloaded(b, *out);
        };
        const auto check = [&](const steps& of) {
          INFO("normed " << of.is_normed << ", adds " << of.adds << ", biased "
                         << of.is_biased << ", gated " << of.gated.has_value());
          const auto together = run(*both.gpu, of, true, 0, rows);
          CHECK(together == run(*both.gpu, of, false, 0, rows));
          const auto alone = run(*both.gpu, of, true, rows - 1, 1);
          CHECK(std::equal(alone.begin(), alone.end(),
                           together.end() -
                               static_cast<std::ptrdiff_t>(alone.size())));
          if (how_kept == kept::as_stored && !of.gated)
            CHECK(both.difference([&](auto& b) {
              return run(b, of, true, 0, rows);
            }) < 1e-4f * std::sqrt(static_cast<float>(cols)));
        };
        for (bool is_normed : {false, true}) {
          for (bool adds : {false, true})
            for (bool is_biased : {false, true})
              check({is_normed, adds, is_biased, {}});
          for (auto how :
               {ops::gate::silu, ops::gate::gelu, ops::gate::erf_gelu})
            check({is_normed, false, false, how});
        }
      }
    }
}

TEST_CASE("of many rows, and as many outputs as a GPU has large blocks for, "
          "each has its own bits") {
  auto gpu = make_gpu();
  constexpr std::int64_t outputs = 2 * 8456, cols = 40, rows = 70;
  const auto x = random_floats(rows * cols, 1);
  const auto weights = random_floats(outputs * cols, 2);
  const auto bytes = stored_as(ops::element_type::bf16, weights);
  for (bool as_e4m3 : {false, true}) {
    ops::matrix_view view{ops::element_type::bf16, outputs, cols, bytes};
    view.as_e4m3 = as_e4m3;
    auto weight = gpu->load({&view, 1}).value();
    auto norm = gpu->upload(random_floats(cols, 3));
    const auto run = [&](std::int64_t first, std::int64_t count) {
      auto in = gpu->upload(std::span{x}.subspan(first * cols, count * cols));
      auto out = gpu->upload(std::vector<float>(count * outputs / 2, poison));
      ops::joined_steps with;
      with.norm = norm.get();
      with.epsilon = 1e-5f;
      with.gated = ops::gate::silu;
      gpu->linear_joined(*weight, in->data(), count, with, out->data());
      return downloaded(*gpu, *out);
    };
    const auto together = run(0, rows);
    for (std::int64_t row : {0, 15, 16, 63, 69}) {
      INFO("e4m3 " << as_e4m3 << ", row " << row);
      const auto alone = run(row, 1);
      CHECK(std::equal(alone.begin(), alone.end(),
                       together.begin() + row * outputs / 2));
    }
  }
}

TEST_CASE("operations on rows are those of the reference") {
  two_backends both;
  const std::uint64_t seed = GENERATE(5, 105, 205);
  for (std::int64_t cols : {1, 33, 128, 1500}) {
    constexpr std::int64_t rows = 3;
    INFO(cols << " columns");
    auto x = random_floats(rows * 2 * cols, seed + cols);
    auto w = random_floats(cols, seed), bias = random_floats(cols, seed + 1);
    auto with = [&](std::size_t floats, auto f, bool is_read = true) {
      return both.difference([&](ops::backend& b) {
        auto in = b.upload(x);
        auto out = b.upload(is_read ? std::vector(x.begin(), x.begin() + floats)
                                    : std::vector(floats, poison));
        auto weight = b.upload(w), add = b.upload(bias);
        f(b, in->data(), *weight, *add, out->data());
        return downloaded(b, *out);
      });
    };
    auto made = [&](std::size_t floats, auto f) {
      return with(floats, f, false);
    };
    auto all = static_cast<std::size_t>(rows * cols);
    constexpr float near = 2e-5f;
    CHECK(made(all, [&](auto& b, auto* in, auto& v, auto&, auto* out) {
            b.rms_norm(in, v, 1e-5f, rows, cols, out);
          }) < near);
    CHECK(made(all, [&](auto& b, auto* in, auto& v, auto& a, auto* out) {
            b.layer_norm(in, v, a, 1e-2f, rows, cols, out);
          }) < near);
    CHECK(made(all, [&](auto& b, auto* in, auto&, auto&, auto* out) {
            b.silu_mul(in, rows, cols, out);
          }) < near);
    CHECK(made(all, [&](auto& b, auto* in, auto&, auto&, auto* out) {
            b.gelu_mul(in, rows, cols, out);
          }) < near);
    CHECK(made(all, [&](auto& b, auto* in, auto&, auto&, auto* out) {
            b.erf_gelu_mul(in, rows, cols, out);
          }) < near);
    CHECK(with(all, [&](auto& b, auto*, auto&, auto& a, auto* out) {
            b.erf_gelu(out, rows, cols);
            b.add_bias(out, a, rows, cols);
            b.scale(out, 1.5f, rows, cols);
            b.soft_cap(out, 2.0f, rows, cols);
          }) < near);
    CHECK(with(all, [&](auto& b, auto* in, auto&, auto&, auto* out) {
            b.add_scaled(in, -0.5f, rows, cols, out);
          }) < near);
    CHECK(made(all, [&](auto& b, auto* in, auto&, auto&, auto* out) {
            b.gather_rows(in, std::vector{5, 0, 5}, cols, out);
          }) == 0);
    CHECK(made(all, [&](auto& b, auto* in, auto&, auto&, auto* out) {
            b.mean_rows(in, std::vector{1, 4, 6}, cols, out);
          }) < near);
    CHECK(with(2 * all, [&](auto& b, auto*, auto& v, auto&, auto* out) {
            if (cols > 1)
              b.rms_norm_groups(out, {2 * cols, cols, 1, cols}, v, 1e-5f, rows);
          }) < near);
  }
}

TEST_CASE("attention sees what it should across blocks and spans") {
  two_backends both;
  constexpr std::int32_t heads = 2, d = 16, length = 150;
  constexpr std::int64_t stride = (heads + 2) * d;
  std::vector<std::int32_t> positions(length), sequences(length, 0), table(10);
  for (std::int32_t i = 0; i < length; ++i)
    positions[i] = i;
  for (std::int32_t i = 0; i < 10; ++i)
    table[i] = 9 - i;
  std::vector<std::span<const std::int32_t>> tables{table};
  // Whole numbers of eighths stay what they are as f16.
  auto values = random_floats(length * stride, 9);
  for (auto& x : values)
    x = std::round(x * 8) / 8;
  struct row {
    const char* what;
    ops::attention_params how;
    ops::rope_params rope;
  };
  ops::rope_params none, partial, scaled;
  none.dims = 0;
  partial.dims = 8;
  partial.interleaved = false;
  scaled.dims = d;
  scaled.factors.assign(d / 2, 3.f);
  scaled.scale = 1.25f;
  auto one = GENERATE_COPY(
      row{"all before it", {heads, .3f, 0, 0, 0}, none},
      row{"a cap", {heads, .3f, 5, 0, 0}, partial},
      row{"a window over a border", {heads, .3f, 0, 20, 0}, scaled},
      row{"what comes after", {heads, .3f, 0, 0, ops::all_ahead}, none},
      row{"a few after, a window", {heads, .3f, 0, 7, 3}, partial});
  INFO(one.what);
  auto run = [&](ops::backend& b, std::int32_t from) {
    auto pool = b.make_kv_pool({2, 1, d, 16, 10}).value();
    auto qkv = b.upload(values);
    ops::batch_view all{positions, sequences, tables};
    b.rope_and_store(qkv->data(), heads, one.rope, all, 1, *pool);
    auto out = b.allocate(length * heads * d);
    ops::batch_view some{std::span{positions}.subspan(from),
                         std::span{sequences}.subspan(from), tables};
    b.attention(qkv->data() + from * stride, one.how, some, 1, *pool,
                out->data() + from * heads * d);
    return downloaded(b, *out);
  };
  // Turned keys are rounded, and so are weights; values go up to 4.
  auto near = one.rope.dims == 0 ? 1e-3f : 5e-3f;
  CHECK(both.difference([&](auto& b) { return run(b, 0); }) < near);
  auto whole = run(*both.gpu, 0), last = run(*both.gpu, length - 1);
  CHECK(
      std::equal(whole.end() - heads * d, whole.end(), last.end() - heads * d));
}

TEST_CASE("attention gives the same bits whole and divided") {
  // Over three parts of 256 positions, the last of them begun.
  constexpr std::int32_t heads = 2, d = 16, length = 530;
  constexpr std::int64_t stride = (heads + 2) * d;
  std::vector<std::int32_t> positions(length), sequences(length, 0), table;
  for (std::int32_t i = 0; i < length; ++i)
    positions[i] = i;
  for (std::int32_t i = 0; i < (length + 15) / 16; ++i)
    table.push_back(i);
  std::vector<std::span<const std::int32_t>> tables{table};
  auto values = random_floats(length * stride, 11);
  ops::rope_params none;
  none.dims = 0;
  const ops::batch_view all{positions, sequences, tables};
  const auto blocks = static_cast<std::int32_t>(table.size());
  for (std::int32_t window : {0, 400, 30}) {
    INFO("window " << window);
    auto run = [&](ops::backend& b, std::vector<std::int32_t> which) {
      auto pool = b.make_kv_pool({1, 1, d, 16, blocks}).value();
      auto qkv = b.upload(values);
      b.rope_and_store(qkv->data(), heads, none, all, 0, *pool);
      auto rows = b.allocate(static_cast<std::int64_t>(which.size()) * stride);
      b.gather_rows(qkv->data(), which, stride, rows->data());
      auto out =
          b.allocate(static_cast<std::int64_t>(which.size()) * heads * d);
      std::vector<std::int32_t> of(which.size(), 0);
      b.attention(rows->data(), {heads, .3f, 0, window, 0}, {which, of, tables},
                  0, *pool, out->data());
      return downloaded(b, *out);
    };
    const std::vector<std::int32_t> some{0, 255, 256, 511, 529};
    auto naive = make_naive_backend();
    auto expected = run(*naive, some);
    if (on_gpu()) { // few rows there are divided, many are not
      auto gpu = make_gpu();
      auto got = run(*gpu, some);
      auto many = run(*gpu, positions);
      for (std::size_t i = 0; i < some.size(); ++i)
        CHECK(std::equal(got.begin() + i * heads * d,
                         got.begin() + (i + 1) * heads * d,
                         many.begin() + some[i] * heads * d));
      continue;
    }
    auto whole = run(*cuda::make_emulated_backend(), some);
    auto divided =
        run(*cuda::make_emulated_backend({.blocks_wanted = 1'000'000}), some);
    CHECK((whole == divided));
    float worst = 0;
    for (std::size_t i = 0; i < whole.size(); ++i)
      worst = std::max(worst, std::abs(whole[i] - expected[i]));
    CHECK(worst < 2e-3f); // values and weights are rounded to f16
  }
}

TEST_CASE("on the GPU's backend every family gives the reference's logits, and "
          "a row the same bits in any company") {
  constexpr model::decoder_limits limits{64, 64, 16, 8};
  for (const std::string name : families) {
    const auto reference = read_reference("families/" + name + ".ref");
    const auto& expected = reference.sequences.front();
    INFO(name);
    auto model = load_model(reference_folder() / "families" / (name + ".gguf"),
                            make_gpu(), limits,
                            static_cast<std::int32_t>(expected.ids.size()));
    // The emulator is slow: the first tokens, for one family all of them.
    auto ids = expected.ids;
    if (name != families[0] && !on_gpu())
      ids.resize(std::min<std::size_t>(ids.size(), 10));
    fed_sequence whole{ids, {4, 0, 7, 2}, 0, {}};
    feed_alone(*model.decoder, whole, 64);
    float worst = 0;
    for (std::size_t i = 0; i < whole.logits.size(); ++i)
      for (std::size_t k = 0; k < reference.top_k; ++k) {
        auto at = i * reference.top_k + k;
        worst = std::max(worst, std::abs(whole.logits[i][expected.best[at]] -
                                         expected.logits[at]));
      }
    INFO("worst " << worst);
    CHECK(worst < tolerance_of(*model.backend, ids.size()));
    // Again in pieces, beside another one.
    fed_sequence batched{ids, {3, 1, 6, 5}, 0, {}};
    fed_sequence other{{ids.rbegin(), ids.rend()}, {2, 0, 7, 4}, 0, {}};
    feed(*model.decoder, {{&other, 5}});
    feed(*model.decoder, {{&other, 1}, {&batched, 6}});
    feed(*model.decoder, {{&batched, 1}, {&other, 1}});
    CHECK(std::equal(batched.logits.begin(), batched.logits.end(),
                     whole.logits.begin()));
  }
}
