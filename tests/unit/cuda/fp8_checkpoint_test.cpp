#include "cuda/emulated_backend.hpp"
#include "engine/model/weight_loader.hpp"
#include "engine/ops/cpu/sizing_backend.hpp"
#include "tests/unit/cuda/stored_e4m3.hpp"
#include "tests/unit/cuda/tested_device.hpp"
#include "tests/unit/model/feeding.hpp"
#include "tests/unit/model/naive_backend.hpp"
#include "tests/unit/model/reference_file.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <list>
#include <utility>

using namespace troupe;
using namespace troupe::test;

// Weights that a checkpoint has in e4m3 already, with its scales: of rows, or
// of blocks of their columns.

TEST_CASE("what is e4m3 already keeps its numbers and its scales") {
  const auto one = random_e4m3(3, 5, 1), two = random_e4m3(2, 5, 2);
  const std::vector parts{one.view(), two.view()};
  CHECK(ops::kept_as_e4m3(parts));
  const auto made = cuda::make_dense(parts).value();
  REQUIRE(made.is_e4m3);
  auto numbers = one.numbers;
  numbers.insert(numbers.end(), two.numbers.begin(), two.numbers.end());
  auto scales = one.scales;
  scales.insert(scales.end(), two.scales.begin(), two.scales.end());
  CHECK(made.bytes.size() == static_cast<std::size_t>(ops::dense_bytes(parts)));
  CHECK(std::equal(numbers.begin(), numbers.end(), made.bytes.begin()));
  CHECK(std::memcmp(made.bytes.data() + ops::e4m3_scales_at(5, 5),
                    scales.data(), 5 * sizeof(float)) == 0);

  // Beside floats that are to be e4m3 too, which get scales of their own.
  const std::vector<float> floats{448, 1, 2, 3, 4};
  ops::matrix_view asked{ops::element_type::f32, 1, 5,
                         std::as_bytes(std::span{floats})};
  asked.as_e4m3 = true;
  const auto beside = cuda::make_dense(std::vector{one.view(), asked}).value();
  const auto meant = meant_by(beside);
  CHECK(std::equal(floats.begin(), floats.end(), meant.end() - 5));
  CHECK(
      std::equal(one.numbers.begin(), one.numbers.end(), beside.bytes.begin()));
}

TEST_CASE("e4m3 beside floats that stay what they are is rounded to bf16") {
  const auto some = random_e4m3(3, 5, 1).scaled(0.3f);
  const auto view = some.view();
  const std::vector<float> floats{1, 2, 3, 4, 5};
  const std::vector parts{view,
                          ops::matrix_view{ops::element_type::f32, 1, 5,
                                           std::as_bytes(std::span{floats})}};
  CHECK_FALSE(ops::kept_as_e4m3(parts));
  const auto made = cuda::make_dense(parts).value();
  CHECK_FALSE(made.is_e4m3);
  CHECK(made.type == ops::element_type::bf16);
  CHECK(made.bytes.size() == static_cast<std::size_t>(ops::dense_bytes(parts)));
  const auto meant = meant_by(cuda::make_dense({&view, 1}).value());
  for (std::size_t i = 0; i < 20; ++i) {
    cuda::bf16 got;
    std::memcpy(&got, made.bytes.data() + 2 * i, sizeof got);
    CHECK(to_float(got) == (i < 15 ? nearest_bf16(meant[i]) : floats[i - 15]));
  }
}

TEST_CASE("e4m3 that is not finite, or not whole, is refused") {
  const auto why = [](const stored_e4m3& wrong) {
    auto view = wrong.view();
    view.rows = 2;
    view.cols = 4;
    auto made = cuda::make_dense({&view, 1});
    return made ? std::string{} : made.error().message;
  };
  const auto right = random_e4m3(2, 4, 3);
  CHECK(why(right).empty());
  for (auto code : {0x7f, 0xff}) {
    auto wrong = right;
    wrong.numbers[5] = static_cast<std::byte>(code);
    CHECK(why(wrong) == "a weight is not a finite number");
  }
  for (auto scale : {INFINITY, NAN}) {
    auto wrong = right;
    wrong.scales[1] = scale;
    CHECK(why(wrong) == "a weight is not a finite number");
  }
  auto shorter = right;
  shorter.numbers.pop_back();
  CHECK(why(shorter) == "a weight's bytes do not match its shape");
  auto fewer = right;
  fewer.scales.pop_back();
  CHECK(why(fewer) == "a weight's bytes do not match its shape");
}

TEST_CASE("products with e4m3 and scales that are powers of two are those with "
          "the same numbers in bf16, to the bit") {
  auto gpu = make_gpu();
  for (auto [outputs, cols] : {std::pair{5, 300}, {130, 264}, {17, 1025}}) {
    const auto stored = random_e4m3(outputs, cols, outputs);
    const auto view = stored.view();
    std::vector<cuda::bf16> same;
    for (auto value : meant_by(cuda::make_dense({&view, 1}).value()))
      same.push_back(cuda::to_bf16(static_cast<float>(value)));
    const ops::matrix_view wide{ops::element_type::bf16, outputs, cols,
                                std::as_bytes(std::span{same})};
    const auto narrow = gpu->load({&view, 1}).value();
    const auto widened = gpu->load({&wide, 1}).value();
    CHECK(narrow->bytes() == ops::dense_bytes({&view, 1}));
    for (std::int64_t rows : {1, 9, 40}) {
      INFO(outputs << " x " << cols << ", " << rows << " rows");
      auto x = gpu->upload(random_floats(rows * cols, rows));
      const auto product = [&](const ops::weight& by) {
        auto out = gpu->allocate(rows * outputs);
        gpu->linear(by, x->data(), rows, out->data(), false);
        return downloaded(*gpu, *out);
      };
      CHECK((product(*narrow) == product(*widened)));
    }
  }
}

namespace {

/// A row's products with the outputs, and what errors are measured by: the sum
/// of magnitudes.
struct expected_products {
  std::vector<double> sums, magnitudes;

  expected_products(const std::vector<float>& x,
                    const std::vector<double>& weights, std::int64_t cols) {
    const auto row_count = static_cast<std::int64_t>(x.size()) / cols;
    const auto outputs = static_cast<std::int64_t>(weights.size()) / cols;
    for (std::int64_t r = 0; r < row_count; ++r)
      for (std::int64_t o = 0; o < outputs; ++o) {
        double sum = 0, magnitude = 0;
        for (std::int64_t i = 0; i < cols; ++i) {
          const auto one = x[static_cast<std::size_t>(r * cols + i)] *
                           weights[static_cast<std::size_t>(o * cols + i)];
          sum += one;
          magnitude += std::abs(one);
        }
        sums.push_back(sum);
        magnitudes.push_back(magnitude);
      }
  }

  /// The largest error, of magnitudes.
  double worst(const std::vector<float>& got) const {
    REQUIRE(got.size() == sums.size());
    double out = 0;
    for (std::size_t i = 0; i < got.size(); ++i)
      out = std::max(out, std::abs(got[i] - sums[i]) / magnitudes[i]);
    return out;
  }
};

} // namespace

TEST_CASE("products with e4m3 whose blocks have scales are right, and a row's "
          "bits are its own") {
  auto gpu = make_gpu();
  for (auto [outputs, cols] :
       {std::pair{1, 129}, {5, 300}, {130, 264}, {17, 1025}, {33, 1024}}) {
    const auto stored = random_e4m3(outputs, cols, outputs, true);
    const auto view = stored.view();
    REQUIRE(view.row_scales == (cols + 127) / 128);
    const auto dense = cuda::make_dense({&view, 1}).value();
    const auto meant = meant_by(dense);
    auto weight = gpu->load({&view, 1}).value();
    CHECK(weight->bytes() == ops::dense_bytes({&view, 1}));
    CHECK(weight->bytes() ==
          ops::e4m3_scales_at(outputs, cols) + outputs * view.row_scales * 4);
    for (std::int64_t rows : {1, 7, 9, 17, 40}) {
      INFO(outputs << " x " << cols << ", " << rows << " rows");
      const auto x = random_floats(rows * cols, rows);
      auto run = [&](std::int64_t first, std::int64_t count) {
        auto in = gpu->upload(std::span{x}.subspan(first * cols, count * cols));
        auto out = gpu->allocate(count * outputs);
        gpu->linear(*weight, in->data(), count, out->data(), false);
        return downloaded(*gpu, *out);
      };
      const auto together = run(0, rows);
      // Rows are read to 17 bits.
      CHECK(expected_products{x, meant, cols}.worst(together) < 0x1p-16);
      const auto alone = run(rows - 1, 1);
      CHECK(std::equal(alone.begin(), alone.end(), together.end() - outputs));
    }
  }
}

TEST_CASE("rows with one scale have it for each block, beside rows with "
          "several") {
  const auto one = random_e4m3(2, 300, 1, true).scaled(0.3f);
  const auto two = random_e4m3(1, 300, 2);
  const std::vector parts{one.view(), two.view()};
  CHECK(ops::row_scales_of(parts) == 3);
  const auto made = cuda::make_dense(parts).value();
  CHECK(made.bytes.size() == static_cast<std::size_t>(ops::dense_bytes(parts)));
  auto expected = one.scales;
  expected.insert(expected.end(), 3, two.scales.front());
  std::vector<float> scales(9);
  std::memcpy(scales.data(), made.bytes.data() + ops::e4m3_scales_at(3, 300),
              sizeof(float) * 9);
  CHECK(scales == expected);
  // What is rounded to bf16 is the nearest to what is meant.
  const std::vector<float> floats(300, 1.5f);
  const std::vector mixed{one.view(),
                          ops::matrix_view{ops::element_type::f32, 1, 300,
                                           std::as_bytes(std::span{floats})}};
  const auto rounded = cuda::make_dense(mixed).value();
  const auto meant = meant_by(made);
  for (std::size_t i = 0; i < 600; ++i) {
    cuda::bf16 got;
    std::memcpy(&got, rounded.bytes.data() + 2 * i, sizeof got);
    REQUIRE(to_float(got) == nearest_bf16(meant[i]));
  }
  auto wrong = one.view();
  wrong.cols = 150;
  wrong.rows = 4;
  CHECK_FALSE(cuda::make_dense({&wrong, 1}).has_value());
}

TEST_CASE("a library multiplies e4m3 in blocks as bf16") {
  constexpr std::int64_t outputs = 2056, cols = 136, rows = 33; // two pieces
  const auto stored = random_e4m3(outputs, cols, 7, true).scaled(0.3f);
  const auto view = stored.view();
  auto gpu = cuda::make_emulated_backend({.has_library = true});
  auto weight = gpu->load({&view, 1}).value();
  ops::step_bounds bounds;
  bounds.rows = rows;
  bounds.sequences = 1;
  bounds.kv = {1, 1, 64, 16, 200'000};
  REQUIRE(gpu->prepare(bounds).has_value());
  REQUIRE(gpu->has_roles());
  const auto x = random_floats(rows * cols, 5);
  auto in = gpu->upload(x);
  const auto there = random_floats(rows * outputs, 6);
  const auto product = [&](ops::row_role role, bool add) {
    auto out = gpu->upload(there);
    gpu->linear(*weight, in->data(), rows, out->data(), add, role);
    return downloaded(*gpu, *out);
  };
  const auto meant = meant_by(cuda::make_dense({&view, 1}).value());
  const expected_products expected{x, meant, cols};
  CHECK(expected.worst(product(ops::row_role::output, false)) < 0x1p-16);
  // Rows and weights have eight bits there, the nearest ones; sums are floats.
  std::vector<float> rounded_x;
  for (auto value : x)
    rounded_x.push_back(static_cast<float>(nearest_bf16(value)));
  std::vector<double> rounded;
  for (auto value : meant)
    rounded.push_back(nearest_bf16(value));
  auto prompt = product(ops::row_role::prompt, false);
  CHECK(expected_products{rounded_x, rounded, cols}.worst(prompt) < 0x1p-18);
  CHECK(expected.worst(prompt) > 0x1p-16);
  for (std::size_t i = 0; i < prompt.size(); ++i)
    prompt[i] += there[i];
  CHECK((product(ops::row_role::prompt, true) == prompt));
}

TEST_CASE("experts in e4m3 whose blocks have scales are right, and a row's "
          "bits are its own") {
  const ops::mixture_params how{3, 2, true, 260, 130};
  std::list<stored_e4m3> narrow;
  std::list<std::vector<float>> wide;
  std::vector<ops::expert_matrices> stored, widened;
  const auto make = [&](std::int64_t rows, std::int64_t cols,
                        ops::matrix_view& to, ops::matrix_view& same) {
    // Scaled so that gates are neither open nor closed.
    narrow.push_back(
        random_e4m3(rows, cols, narrow.size(), true).scaled(0x1p-9f));
    to = narrow.back().view();
    auto& floats = wide.emplace_back();
    for (auto value : meant_by(cuda::make_dense({&to, 1}).value()))
      floats.push_back(static_cast<float>(value));
    same = {ops::element_type::f32, rows, cols,
            std::as_bytes(std::span{floats})};
  };
  for (std::int32_t e = 0; e < how.experts; ++e) {
    auto& one = stored.emplace_back();
    auto& same = widened.emplace_back();
    make(how.inner, how.cols, one.gate, same.gate);
    make(how.inner, how.cols, one.up, same.up);
    make(how.cols, how.inner, one.down, same.down);
  }
  // Chunks of few pairs, and of many.
  using layout = ops::gpu_mixture_layout;
  const std::int64_t rows = GENERATE(11, 40);
  CHECK(layout::chunk_pairs(how, rows) ==
        (rows == 11 ? layout::few_pairs : layout::many_pairs));
  const auto x = random_floats(rows * how.cols, 1);
  const auto scores = random_floats(rows * how.experts, 2);
  const auto mixed = [&](ops::backend& b,
                         const std::vector<ops::expert_matrices>& experts,
                         std::int64_t first, std::int64_t count) {
    auto weights = b.load_experts(experts).value();
    auto in =
        b.upload(std::span{x}.subspan(first * how.cols, count * how.cols));
    auto by = b.upload(
        std::span{scores}.subspan(first * how.experts, count * how.experts));
    auto out = b.allocate(count * how.cols);
    b.mix_experts(*weights, how, in->data(), by->data(), count, out->data());
    return downloaded(b, *out);
  };
  auto gpu = make_gpu();
  const auto got = mixed(*gpu, stored, 0, rows);
  const auto expected = mixed(*make_naive_backend(), widened, 0, rows);
  float most = 0;
  for (auto y : expected)
    most = std::max(most, std::abs(y));
  for (std::size_t i = 0; i < got.size(); ++i)
    REQUIRE(std::abs(got[i] - expected[i]) < 1e-4f * most);
  const auto alone = mixed(*gpu, stored, rows - 1, 1);
  CHECK(std::equal(alone.begin(), alone.end(), got.end() - how.cols));
}

namespace {

/// What a rank of two has of a tensor, times rows of x.
std::vector<float> product_of(ops::backend& gpu,
                              const weights::checkpoint& file,
                              const model::weight_loader::part& part,
                              const model::shard& rank,
                              const std::vector<float>& x) {
  model::weight_loader loader{file, gpu, model::reading::elements, {}, rank};
  const auto weight = loader.weight({part}).value();
  const auto rows = static_cast<std::int64_t>(x.size()) / weight->cols();
  auto in = gpu.upload(x);
  auto out = gpu.allocate(rows * weight->rows());
  gpu.linear(*weight, in->data(), rows, out->data(), false);
  return downloaded(gpu, *out);
}

/// A checkpoint of one matrix.
class one_matrix final : public weights::checkpoint {
public:
  explicit one_matrix(stored_e4m3 stored) : stored_(std::move(stored)) {
    const auto view = stored_.view();
    auto& one = tensors_.emplace_back();
    one.name = "one";
    one.type = view.type;
    one.shape = {view.cols, view.rows};
    one.bytes = view.bytes;
    one.row_scales = view.row_scales;
  }

  const weights::metadata_value* find(std::string_view) const override {
    return nullptr;
  }

  const weights::tensor* find_tensor(std::string_view) const override {
    return &tensors_.front();
  }

  std::span<const weights::tensor> tensors() const override {
    return tensors_;
  }

  result<weights::tensor_data> read(const weights::tensor& one) const override {
    weights::tensor_data out{one.bytes};
    out.scales = stored_.scales;
    return out;
  }

  const std::string& name() const override {
    return tensors_.front().name;
  }

  std::string content_hash(int) const override {
    return {};
  }

  bool changed() const override {
    return false;
  }

private:
  stored_e4m3 stored_;
  std::vector<weights::tensor> tensors_;
};

} // namespace

TEST_CASE("a rank's part of a matrix in e4m3 has its rows' scales") {
  // Two tiles of columns, that are added in the same order.
  constexpr std::int64_t rows = 6, cols = 64;
  const one_matrix file{random_e4m3(rows, cols, 8)};
  auto gpu = make_gpu();
  const auto x = random_floats(static_cast<std::size_t>(cols), 4);
  const auto whole = product_of(*gpu, file, {"one", {}}, {}, x);
  using model::cut;
  std::vector<float> outputs;
  for (std::int32_t rank : {0, 1}) {
    const auto own = product_of(
        *gpu, file, {"one", {cut::outputs, {{rows, 2}}}}, {rank, 2}, x);
    outputs.insert(outputs.end(), own.begin(), own.end());
  }
  CHECK(outputs == whole);
  const std::vector<float> right{x.begin() + cols / 2, x.end()};
  auto of_right = x;
  std::fill_n(of_right.begin(), cols / 2, 0.0f);
  CHECK(product_of(*gpu, file, {"one", {cut::inputs, {}}}, {1, 2}, right) ==
        product_of(*gpu, file, {"one", {}}, {}, of_right));
}

TEST_CASE("of tensors that are loaded at once all are named where one is "
          "refused") {
  auto wrong = random_e4m3(2, 4, 1);
  wrong.numbers[5] = std::byte{0x7f};
  const one_matrix file{wrong};
  auto gpu = make_gpu();
  model::weight_loader loader{file, *gpu, model::reading::elements, {}};
  CHECK(loader.weight({{"one"}}).error().message ==
        "one: tensor 'one': a weight is not a finite number");
  CHECK(loader.weight({{"one"}, {"other"}}).error().message ==
        "one: one of 'one', 'other': a weight is not a finite number");
}

TEST_CASE("a rank's part of a matrix in e4m3 has its blocks' scales") {
  const one_matrix file{random_e4m3(6, 512, 3, true)};
  auto gpu = make_gpu();
  const auto x = random_floats(512, 4);
  const auto whole = product_of(*gpu, file, {"one", {}}, {}, x);
  using model::cut;
  std::vector<float> outputs;
  for (std::int32_t rank : {0, 1}) {
    const auto own =
        product_of(*gpu, file, {"one", {cut::outputs, {{6, 2}}}}, {rank, 2}, x);
    outputs.insert(outputs.end(), own.begin(), own.end());
  }
  CHECK(outputs == whole);
  // The parts of several blocks, and of one, whose scale is its row's.
  for (std::int32_t size : {2, 4})
    for (std::int32_t rank = 0; rank < size; ++rank) {
      const auto count = 512 / size;
      const auto begin = x.begin() + rank * count;
      auto of_rank = std::vector<float>(512);
      std::copy_n(begin, count, of_rank.begin() + rank * count);
      const auto own = product_of(*gpu, file, {"one", {cut::inputs, {}}},
                                  {rank, size}, {begin, begin + count});
      const auto same = product_of(*gpu, file, {"one", {}}, {}, of_rank);
      for (std::size_t o = 0; o < 6; ++o)
        CHECK(own[o] == Approx(same[o]).epsilon(1e-5));
    }
  // What a plan counts is what is loaded.
  for (auto [kind, size] : {std::pair{cut::none, 1},
                            {cut::outputs, 2},
                            {cut::inputs, 2},
                            {cut::inputs, 4}}) {
    const model::weight_loader::part part{"one", {kind, {{6, size}}}};
    const model::shard rank{0, size};
    auto sizes = ops::cpu::make_sizing_backend(ops::cpu::kept_by::gpu);
    model::weight_loader planned{
        file, *sizes, model::reading::shapes, {}, rank};
    model::weight_loader loaded{file, *gpu, model::reading::elements, {}, rank};
    REQUIRE(planned.weight({part}).has_value());
    REQUIRE(loaded.weight({part}).has_value());
    CHECK(planned.resident_bytes() == loaded.resident_bytes());
    CHECK(planned.resident_bytes() ==
          static_cast<std::uint64_t>(6 * (512 + 4 * 4) / size));
  }
  model::weight_loader loader{file, *gpu, model::reading::elements, {}, {0, 8}};
  auto refused = loader.weight({{"one", {cut::inputs, {}}}});
  REQUIRE(!refused.has_value());
  CHECK_THAT(refused.error().message,
             Catch::Contains("its 512 columns, in blocks of 128, cannot be "
                             "divided by 8"));
}

TEST_CASE("a checkpoint in fp8 gives transformers' logits, in any company") {
  const auto file =
      model::open_checkpoint(reference_folder() / "tiny/llama-fp8",
                             model::hugging_face::e4m3_matrices::kept)
          .value();
  const auto config = model::read_model_config(*file, 64).value();
  auto gpu = make_gpu();
  auto decoder =
      model::decoder::make(*file, config, *gpu, small_limits, {}).value();
  const auto reference = read_reference("tiny/llama-fp8.ref");
  const auto& expected = reference.sequences.front();
  fed_sequence whole{expected.ids, {4, 0, 7, 2, 6}, 0, {}};
  feed_alone(*decoder, whole, 64);
  float worst = 0;
  for (std::size_t at = 0; at < expected.ids.size() * reference.top_k; ++at)
    worst = std::max(
        worst, std::abs(whole.logits[at / reference.top_k][expected.best[at]] -
                        expected.logits[at]));
  CHECK(worst < 0.02f);
  fed_sequence batched{expected.ids, {3, 9, 8, 10, 11}, 0, {}};
  fed_sequence other{expected.ids, {1, 12}, 0, {}};
  feed(*decoder, {{&other, 5}});
  feed(*decoder, {{&other, 1}, {&batched, 6}});
  feed(*decoder, {{&batched, 1}, {&other, 1}});
  feed_alone(*decoder, batched, 64);
  CHECK((batched.logits == whole.logits));
}
