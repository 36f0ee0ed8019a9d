#include "cuda/kernels/numbers.hpp"
#include "cuda/stored_weight.hpp"
#include "engine/engine.hpp"
#include "engine/ops/cpu/sizing_backend.hpp"
#include "engine/ops/dense_layout.hpp"
#include "engine/weights/converted_checkpoint.hpp"
#include "tests/unit/cuda/stored_e4m3.hpp"
#include "tests/unit/cuda/tested_device.hpp"
#include "tests/unit/model/feeding.hpp"
#include "tests/unit/model/naive_backend.hpp"
#include "tests/unit/model/reference_file.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <random>
#include <set>

using namespace troupe;
using namespace troupe::test;
using cuda::e4m3;

// Weights and keys and values in e4m3, by the emulator or a GPU.

namespace {

/// The nearest code of a number from 0 on, the even one of two; 448 is the end.
unsigned nearest_code(double value) {
  unsigned best = 0;
  for (unsigned code = 1; code < 0x7f; ++code) {
    const double apart = std::abs(value_of(code) - value);
    const double least = std::abs(value_of(best) - value);
    if (apart < least || (apart == least && code % 2 == 0))
      best = code;
  }
  return best;
}

ops::matrix_view as_e4m3(std::span<const float> values, std::int64_t rows) {
  ops::matrix_view out{ops::element_type::f32, rows,
                       static_cast<std::int64_t>(values.size()) / rows,
                       std::as_bytes(values)};
  out.as_e4m3 = true;
  return out;
}

} // namespace

TEST_CASE("every code of e4m3 means what the format says") {
  for (unsigned code = 0; code < 256; ++code) {
    INFO(code);
    const auto got = to_float(e4m3{static_cast<std::uint8_t>(code)});
    if (code % 128 == 127) {
      CHECK(std::isnan(got));
      continue;
    }
    CHECK(got == value_of(code));
    CHECK(std::signbit(got) == (code >= 128));
    CHECK(cuda::to_e4m3(got).bits == code);
  }
}

TEST_CASE("numbers are rounded to the nearest of e4m3, ties to even") {
  // Each code, the middle to the next one, and what is beside both; random
  // ones; what is beyond the end.
  std::vector<float> values{448, 449, 464, 465, 480, 1e30f, INFINITY};
  for (unsigned code = 0; code < 0x7e; ++code) {
    const auto from = static_cast<float>(value_of(code));
    const auto middle =
        static_cast<float>((value_of(code) + value_of(code + 1)) / 2);
    for (auto x : {from, middle})
      for (auto near : {x, std::nextafter(x, 0.0f), std::nextafter(x, 1e9f)})
        values.push_back(near);
  }
  std::mt19937 random{5};
  for (int i = 0; i < 10'000; ++i)
    values.push_back(std::ldexp(static_cast<float>(random() >> 8) * 0x1p-24f,
                                static_cast<int>(random() % 24) - 13));
  for (auto x : values) {
    INFO(x);
    const auto expected = nearest_code(std::min(x, 448.0f));
    REQUIRE(cuda::to_e4m3(x).bits == expected);
    REQUIRE(cuda::to_e4m3(-x).bits == (expected | 0x80));
  }
  CHECK(cuda::to_e4m3(1e-30f).bits == 0);
  CHECK(cuda::to_e4m3(NAN).bits % 128 == 127);
}

TEST_CASE("a weight in e4m3 has a scale per row") {
  std::vector<float> values(6 * 5);
  std::mt19937 random{3};
  for (auto& x : values)
    x = static_cast<float>(random() % 1000) / 10 - 50;
  for (int i = 0; i < 5; ++i)
    values[10 + i] = 0; // a row of zeros
  values[15] = 1e-44f;  // and one that is too small for a scale
  std::fill(values.begin() + 16, values.begin() + 20, 0.0f);
  const auto both = std::vector{as_e4m3(std::span{values}.first(20), 4),
                                as_e4m3(std::span{values}.subspan(20), 2)};
  auto made = cuda::make_dense(both);
  REQUIRE(made.has_value());
  CHECK(made->bytes.size() == static_cast<std::size_t>(ops::dense_bytes(both)));
  const auto meant = meant_by(*made);
  for (std::size_t r = 0; r < 6; ++r) {
    double most = 0;
    for (std::size_t i = 0; i < 5; ++i)
      most = std::max(most, std::abs(double{values[5 * r + i]}));
    for (std::size_t i = 0; i < 5; ++i) {
      const double x = values[5 * r + i];
      // Half of the last bit; of the smallest number; of nothing.
      CHECK(std::abs(meant[5 * r + i] - x) <=
            std::max({std::abs(x) / 16, most / 448 * 0x1p-10, 1e-40}) * 1.0001);
      if (std::abs(x) == most && most > 1)
        CHECK(meant[5 * r + i] == Approx(x).epsilon(1e-6));
    }
  }
  values[7] = INFINITY;
  auto refused = cuda::make_dense(both);
  REQUIRE(!refused.has_value());
  CHECK(refused.error().message == "a weight is not a finite number");
}

TEST_CASE("products with weights in e4m3 are right for odd shapes, and a row's "
          "bits are its own") {
  auto gpu =
      make_gpu({.blocks_wanted = GENERATE(0, 1'000'000)}, ops::kv_type::f16);
  for (auto [outputs, cols] : {std::pair{1, 1},
                               {3, 7},
                               {4, 8},
                               {5, 300},
                               {130, 264},
                               {17, 1025},
                               {18, 4360}}) {
    const auto values = random_floats(outputs * cols, outputs + cols);
    const auto view = as_e4m3(values, outputs);
    const auto meant = meant_by(cuda::make_dense({&view, 1}).value());
    auto weight = gpu->load({&view, 1}).value();
    CHECK(weight->bytes() == ops::dense_bytes({&view, 1}));
    for (std::int64_t rows : {1, 7, 8, 9, 17}) {
      INFO(outputs << " x " << cols << ", " << rows << " rows");
      const auto x = random_floats(rows * cols, rows);
      auto run = [&](std::int64_t first, std::int64_t count, bool add) {
        auto in = gpu->upload(std::span{x}.subspan(first * cols, count * cols));
        auto out = gpu->upload(std::vector<float>(count * outputs, 2.5f));
        gpu->linear(*weight, in->data(), count, out->data(), add);
        return downloaded(*gpu, *out);
      };
      const auto together = run(0, rows, true);
      double worst = 0;
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t o = 0; o < outputs; ++o) {
          double sum = 2.5;
          for (std::int64_t i = 0; i < cols; ++i)
            sum += x[r * cols + i] * meant[o * cols + i];
          worst = std::max(worst, std::abs(together[r * outputs + o] - sum));
        }
      // Rows are read to 17 bits.
      CHECK(worst < 1.5e-5 * (1 + std::sqrt(cols)));
      const auto alone = run(rows - 1, 1, true);
      CHECK(std::equal(alone.begin(), alone.end(), together.end() - outputs));
    }
  }
}

TEST_CASE("attention over keys and values in e4m3 is right, and its bits do "
          "not depend on company") {
  // Of parts of 256 positions the second is begun; odd heads.
  constexpr std::int32_t heads = 3, d = 10, length = 300;
  constexpr std::int64_t stride = (heads + 2) * d;
  auto values = random_floats(length * stride, 9);
  for (auto& x : values) // numbers of e4m3: the reference keeps all bits
    x = std::clamp(std::round(x * 8), -15.0f, 15.0f) / 8;
  std::vector<std::int32_t> positions(length), table;
  for (std::int32_t i = 0; i < length; ++i)
    positions[i] = i;
  for (std::int32_t i = 0; i < (length + 15) / 16; ++i)
    table.insert(table.begin(), i);
  const std::vector<std::int32_t> sequences(length, 0);
  const std::vector<std::span<const std::int32_t>> tables{table};
  ops::rope_params none;
  const ops::batch_view all{positions, sequences, tables};
  auto run = [&](ops::backend& b, const std::vector<std::int32_t>& which) {
    auto pool =
        b.make_kv_pool({1, 1, d, 16, static_cast<std::int32_t>(table.size())})
            .value();
    auto qkv = b.upload(values);
    b.rope_and_store(qkv->data(), heads, none, all, 0, *pool);
    const auto rows = static_cast<std::int64_t>(which.size());
    auto some = b.allocate(rows * stride);
    b.gather_rows(qkv->data(), which, stride, some->data());
    auto out = b.allocate(rows * heads * d);
    const std::vector<std::int32_t> of(which.size(), 0);
    b.attention(some->data(), {heads, .3f, 0, 0, 0}, {which, of, tables}, 0,
                *pool, out->data());
    return downloaded(b, *out);
  };
  const std::vector<std::int32_t> some{0, 17, 255, 299};
  auto gpu = make_gpu({}, ops::kv_type::e4m3);
  const auto got = run(*gpu, some);
  const auto expected = run(*make_naive_backend(), some);
  for (std::size_t i = 0; i < got.size(); ++i)
    REQUIRE(std::abs(got[i] - expected[i]) < 1e-3f); // weights are f16
  const auto last = run(*gpu, {some.back()});
  CHECK(std::equal(last.begin(), last.end(), got.end() - heads * d));
  if (!on_gpu()) {
    auto divided = make_gpu({.blocks_wanted = 1'000'000}, ops::kv_type::e4m3);
    CHECK((run(*divided, some) == got));
  }
}

TEST_CASE("keys and values beyond e4m3 are its largest number") {
  auto gpu = make_gpu({}, ops::kv_type::e4m3);
  const std::vector<std::int32_t> zero{0}, table{0};
  const std::vector<std::span<const std::int32_t>> tables{table};
  // One head of two dimensions: q, k, v.
  auto qkv = gpu->upload(std::vector<float>{1, 1, 1e6f, -1e6f, 500, -1e9f});
  auto pool = gpu->make_kv_pool({1, 1, 2, 16, 1}).value();
  CHECK(pool->bytes() == 2 * 16 * 2);
  const ops::batch_view one{zero, zero, tables};
  gpu->rope_and_store(qkv->data(), 1, {}, one, 0, *pool);
  auto out = gpu->allocate(2);
  gpu->attention(qkv->data(), {1, 1, 0, 0, 0}, one, 0, *pool, out->data());
  CHECK(downloaded(*gpu, *out) == std::vector<float>{448, -448});
}

namespace {

constexpr model::decoder_limits limits{24, 24, 16, 8};

/// A family's model whose matrices are to be e4m3.
std::unique_ptr<weights::checkpoint> rounded_later(const std::string& name) {
  auto stored = model::open_checkpoint(reference_folder() / "families" /
                                       (name + ".gguf"));
  REQUIRE(stored.has_value());
  return weights::convert_matrices(std::move(*stored),
                                   weights::matrix_form::e4m3);
}

/// The same as somebody stores it who rounds as we do.
class rounded_before final : public weights::checkpoint {
public:
  explicit rounded_before(const std::string& name) : all_(rounded_later(name)) {
    tensors_.assign(all_->tensors().begin(), all_->tensors().end());
    for (auto& one : tensors_)
      if (one.as_e4m3)
        round(one);
  }

  const weights::metadata_value* find(std::string_view key) const override {
    return all_->find(key);
  }

  const weights::tensor* find_tensor(std::string_view name) const override {
    const auto found =
        std::find_if(tensors_.begin(), tensors_.end(),
                     [&](const auto& one) { return one.name == name; });
    return found == tensors_.end() ? nullptr : &*found;
  }

  std::span<const weights::tensor> tensors() const override {
    return tensors_;
  }

  result<weights::tensor_data> read(const weights::tensor& one) const override {
    weights::tensor_data out{one.bytes};
    if (const auto found = scales_.find(one.name); found != scales_.end())
      out.scales = found->second;
    return out;
  }

  const std::string& name() const override {
    return all_->name();
  }

  std::string content_hash(int threads) const override {
    return all_->content_hash(threads);
  }

  bool changed() const override {
    return false;
  }

private:
  void round(weights::tensor& one) {
    const auto from = one.matrix();
    auto made = cuda::make_dense({&from, 1}).value();
    const auto at =
        static_cast<std::size_t>(ops::e4m3_scales_at(made.rows, made.cols));
    stored_e4m3& kept = kept_.emplace_back();
    kept.scales.resize(static_cast<std::size_t>(made.rows));
    std::memcpy(kept.scales.data(), made.bytes.data() + at,
                kept.scales.size() * sizeof(float));
    made.bytes.resize(static_cast<std::size_t>(made.rows * made.cols));
    kept.rows = made.rows;
    kept.numbers = std::move(made.bytes);
    one.type = ops::element_type::e4m3;
    one.as_e4m3 = false;
    one.bytes = kept.numbers;
    scales_.emplace(one.name, kept.scales);
  }

  std::unique_ptr<weights::checkpoint> all_;
  std::vector<weights::tensor> tensors_;
  std::list<stored_e4m3> kept_;
  std::map<std::string, std::vector<float>> scales_;
};

/// A model with keys and values in e4m3 too, and what was planned for it.
struct fp8_model {
  explicit fp8_model(std::unique_ptr<weights::checkpoint> file)
      : backend(make_gpu({.usage = &usage}, ops::kv_type::e4m3)) {
    auto config = model::read_model_config(*file, 64);
    REQUIRE(config.has_value());
    auto made = model::decoder::make(*file, *config, *backend, limits, {});
    INFO((made ? std::string{} : made.error().message));
    REQUIRE(made.has_value());
    decoder = std::move(*made);
    auto sizes = ops::cpu::make_sizing_backend(ops::cpu::kept_by::gpu,
                                               ops::kv_type::e4m3);
    planned = model::decoder_size(*file, *config, *sizes, limits).value();
  }

  cuda::emulated_usage usage;
  std::unique_ptr<ops::backend> backend;
  std::unique_ptr<model::decoder> decoder;
  model::decoder_bytes planned;
};

} // namespace

TEST_CASE("families in e4m3 take what was planned, are near the reference, and "
          "a row has the same bits in any company") {
  for (const std::string name :
       {"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3",
        "smollm3", "granite", "olmo2", "qwen3moe"}) {
    INFO(name);
    fp8_model model{rounded_later(name)};
    if (!on_gpu()) {
      CHECK(model.usage.bytes ==
            model.planned.weights + model.planned.kv_cache +
                model.planned.workspace + ops::gpu_workspace_bytes);
    }
    CHECK(model.planned.weights == model.decoder->weight_bytes());
    CHECK(model.planned.kv_cache == model.decoder->kv_cache_bytes());
    const auto reference = read_reference("families/" + name + ".ref");
    auto ids = reference.sequences.front().ids;
    ids.resize(10);
    fed_sequence whole{ids, {4}, 0, {}};
    feed_alone(*model.decoder, whole, 24);
    double sum = 0;
    for (std::size_t at = 0; at < ids.size() * reference.top_k; ++at)
      sum += std::abs(whole.logits[at / reference.top_k]
                                  [reference.sequences.front().best[at]] -
                      reference.sequences.front().logits[at]);
    const auto mean = sum / static_cast<double>(ids.size() * reference.top_k);
    // Logits deviate by 2 from their mean.
    CHECK(mean < 0.5);
    CHECK(mean > 0.01); // it is e4m3
    fed_sequence batched{ids, {3}, 0, {}}, other{ids, {2}, 0, {}};
    feed(*model.decoder, {{&other, 5}});
    feed(*model.decoder, {{&other, 1}, {&batched, 6}});
    feed(*model.decoder, {{&batched, 4}, {&other, 1}});
    CHECK((batched.logits == whole.logits));
    // Nor does it matter who rounded.
    fp8_model same{std::make_unique<rounded_before>(name)};
    CHECK(same.planned.weights == model.planned.weights);
    CHECK(same.planned.workspace == model.planned.workspace);
    CHECK(same.decoder->weight_bytes() == model.decoder->weight_bytes());
    fed_sequence again{ids, {4}, 0, {}};
    feed_alone(*same.decoder, again, 24);
    CHECK((again.logits == whole.logits));
  }
}

namespace {

/// An engine on the emulated GPU, or on the one that is there.
class fp8_engine {
public:
  explicit fp8_engine(const engine::options& o) {
    auto loaded = engine::engine::load(o, {});
    INFO((loaded ? std::string{} : loaded.error().message));
    REQUIRE(loaded.has_value());
    engine_ = std::move(*loaded);
    engine_->start([this](engine::step_result&& step) {
      std::lock_guard guard{mutex_};
      for (auto& one : step.outputs) {
        for (auto token : one.tokens)
          tokens_[one.id].push_back(token);
        done_ += one.finish != engine::finish_reason::none;
      }
      changed_.notify_all();
    });
  }

  const engine::description& about() const {
    return engine_->about();
  }

  /// Asks for all at once; the tokens of each.
  std::map<std::uint64_t, std::vector<token_id>>
  ask(const std::vector<engine::request>& all) {
    {
      std::lock_guard guard{mutex_};
      tokens_.clear();
      done_ = 0;
    }
    for (const auto& one : all)
      engine_->submit(one);
    std::unique_lock lock{mutex_};
    REQUIRE(changed_.wait_for(lock, std::chrono::minutes{5},
                              [&] { return done_ == all.size(); }));
    return tokens_;
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, std::vector<token_id>> tokens_;
  std::size_t done_ = 0;
  std::unique_ptr<engine::engine> engine_; // its thread ends first
};

engine::options options_of(const char* model) {
  engine::options o;
  o.model = reference_folder() / "tiny" / model;
  o.device = "cuda";
  o.max_model_len = 48;
  o.max_num_seqs = 4;
  o.max_num_batched_tokens = 16;
  o.kv_cache_bytes = 1 << 20;
  return o;
}

} // namespace

TEST_CASE(
    "an engine with fp8 takes what was measured, is of its own class, and "
    "gives a request the same in any company") {
  ::setenv("TROUPE_CUDA_MODULE",
           TROUPE_BINARY_DIR "/tests/emulated_gpu/libemulated_gpu.so", 0);
  ::setenv("CUDA_VISIBLE_DEVICES", "0", 0);
  std::set<std::string> classes;
  std::map<std::string, std::uint64_t> weights, blocks;
  for (auto [weight, kv] : {std::pair{"", ""},
                            {"fp8", ""},
                            {"", "fp8_e4m3"},
                            {"fp8", "fp8_e4m3"}}) {
    INFO(weight << ", " << kv);
    auto o = options_of("llama-bf16");
    o.quantization = weight;
    o.kv_cache_dtype = kv;
    auto measured = engine::measure(o, 1 << 30);
    REQUIRE(measured.has_value());
    fp8_engine one{o};
    CHECK(measured->weight_bytes == one.about().weight_bytes);
    CHECK(measured->kv_cache_bytes == one.about().kv_cache_bytes);
    classes.insert(one.about().arithmetic_class);
    weights[weight] = measured->weight_bytes;
    blocks[kv] = measured->kv_block_bytes;
    std::vector<engine::request> all(2);
    for (std::uint64_t id = 0; id < all.size(); ++id) {
      all[id].id = id;
      all[id].prompt = {5, 9, static_cast<token_id>(20 + id), 7};
      all[id].prompt.resize(4 + 3 * id, 11);
      all[id].params.max_tokens = 4;
      all[id].params.seed = 7 + id;
      all[id].params.temperature = id == 0 ? 0.0f : 1.0f;
    }
    const auto together = one.ask(all);
    CHECK(together.size() == all.size());
    for (const auto& request : all)
      CHECK(one.ask({request}).at(request.id) == together.at(request.id));
  }
  CHECK(classes.size() == 4);
  CHECK(weights["fp8"] < 0.8 * weights[""]); // embeddings stay bf16
  CHECK(2 * blocks["fp8_e4m3"] == blocks[""]);
}

TEST_CASE("a checkpoint in fp8 stays that on a GPU, unless it is to be "
          "something else") {
  const auto weights_of = [](const char* model, const char* quantization,
                             const char* dtype = "") {
    auto o = options_of(model);
    o.quantization = quantization;
    o.dtype = dtype;
    return engine::measure(o, 1 << 30).value().weight_bytes;
  };
  const auto kept = weights_of("llama-fp8", "");
  CHECK(weights_of("llama-fp8", "compressed-tensors") == kept);
  CHECK(weights_of("llama-fp8", "", "bfloat16") == kept);
  CHECK(weights_of("llama-fp8", "", "float16") == kept);
  // The same model in blocks is F16, two bytes for each number, no scales.
  constexpr std::uint64_t outputs = 64 + 2 * 32 + 64 + 2 * 128 + 64;
  constexpr std::uint64_t numbers =
      64 * (outputs - 64) + std::uint64_t{128} * 64;
  const auto widened = weights_of("llama-fp8-blocks", "fp8");
  CHECK(widened == weights_of("llama-fp8-blocks", ""));
  CHECK(widened - kept == 2 * (numbers - 4 * outputs)); // of two layers
  CHECK(weights_of("llama-fp8", "q8_0") == widened);    // in bf16
  for (const char* model : {"llama-awq", "llama-fp8"}) {
    auto other = options_of(model);
    other.quantization = "fp8";
    auto refused = engine::measure(other, 1 << 30);
    REQUIRE(!refused.has_value());
    CHECK_THAT(refused.error().message,
               Catch::Contains(model == std::string{"llama-awq"}
                                   ? "quantised with awq, not with fp8"
                                   : "quantised with compressed-tensors, not "
                                     "with fp8"));
  }
}

TEST_CASE("an engine of a checkpoint in fp8 takes what was measured") {
  ::setenv("TROUPE_CUDA_MODULE",
           TROUPE_BINARY_DIR "/tests/emulated_gpu/libemulated_gpu.so", 0);
  ::setenv("CUDA_VISIBLE_DEVICES", "0", 0);
  const auto o = options_of("llama-fp8");
  const auto measured = engine::measure(o, 1 << 30).value();
  fp8_engine one{o};
  CHECK(measured.weight_bytes == one.about().weight_bytes);
  engine::request request;
  request.id = 1;
  request.prompt = {5, 9, 20, 7};
  request.params.max_tokens = 4;
  request.params.seed = 7;
  CHECK(one.ask({request}).at(1).size() == 4);
}

TEST_CASE("whether a checkpoint in fp8 is called that is no other class") {
  ::setenv("TROUPE_CUDA_MODULE",
           TROUPE_BINARY_DIR "/tests/emulated_gpu/libemulated_gpu.so", 0);
  ::setenv("CUDA_VISIBLE_DEVICES", "0", 0);
  const auto class_of = [](const char* model, const char* quantization) {
    auto o = options_of(model);
    o.quantization = quantization;
    return fp8_engine{o}.about().arithmetic_class;
  };
  const auto rows = class_of("llama-fp8", "");
  CHECK(class_of("llama-fp8", "compressed-tensors") == rows);
  const auto blocks = class_of("llama-fp8-blocks", "");
  CHECK(class_of("llama-fp8-blocks", "fp8") == blocks);
  CHECK(rows != blocks);
}
