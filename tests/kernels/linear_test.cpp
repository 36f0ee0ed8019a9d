#include "ggml_blocks.hpp"
#include "kernel_fixture.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>

using namespace troupe;
using namespace troupe::ops;
using namespace troupe::ops::test;

namespace {

struct shape {
  std::int64_t outputs, inputs, rows;
};

constexpr shape shapes[] = {{1, 32, 1},   {16, 64, 3},   {17, 96, 5},
                            {33, 576, 2}, {70, 160, 17}, {47, 1536, 1},
                            {5, 352, 33}, {64, 32, 70}};

std::unique_ptr<weight> load(backend& ops, const matrix& m) {
  const matrix_view views[] = {m.view()};
  return ops.load(views).value();
}

/// The rounding of activations that the contract states, in double.
std::vector<double> rounded_to_int8(const std::vector<float>& x) {
  std::vector<double> out;
  for (std::size_t first = 0; first < x.size(); first += 32) {
    float a = 0;
    for (std::size_t i = first; i < first + 32; ++i)
      a = std::max(a, std::fabs(x[i]));
    const float d = a / 127.0f, inverse = a > 0 ? 127.0f / a : 0;
    for (std::size_t i = first; i < first + 32; ++i)
      out.push_back(double{d} * std::nearbyint(x[i] * inverse));
  }
  return out;
}

std::vector<double> rounded_to_bf16(const std::vector<float>& x) {
  std::vector<double> out;
  for (const float one : x)
    out.push_back(std::ldexp(
        std::nearbyint(std::ldexp(one, 7 - std::ilogb(one == 0 ? 1 : one))),
        std::ilogb(one == 0 ? 1 : one) - 7));
  return out;
}

/// The inputs of a product as its weights' type has them.
std::vector<double> operands_of(element_type type,
                                const std::vector<float>& x) {
  if (quantised(type))
    return rounded_to_int8(x);
  return type == element_type::bf16 ? rounded_to_bf16(x)
                                    : std::vector<double>(x.begin(), x.end());
}

struct sums {
  double value = 0;
  double magnitude = 0; ///< of |w * x|
};

sums product(const matrix& m, std::int64_t output, const double* x) {
  sums s;
  for (std::int64_t k = 0; k < m.cols; ++k) {
    const double term = m.values[output * m.cols + k] * x[k];
    s.value += term;
    s.magnitude += std::fabs(term);
  }
  return s;
}

} // namespace

TEST_CASE("a product matches the sum in double of the same operands") {
  random_numbers random{1};
  const auto ops = plain_backend();
  for (const auto type : all_types)
    for (auto s : shapes) {
      s.inputs = whole_blocks(type, s.inputs);
      const auto m = random_matrix(type, s.outputs, s.inputs, random);
      const auto x = random.values(s.rows * s.inputs);
      const auto w = load(*ops, m);
      CHECK(w->rows() == s.outputs);
      CHECK(w->cols() == s.inputs);
      const auto y = apply(*ops, *w, x, s.rows);
      const auto operands = operands_of(type, x);
      // Each fused step rounds once, relative to a partial sum that is at most
      // the sum of magnitudes; a block also rounds its scale. A block's minimum
      // and values may cancel in `magnitude`, hence the factor 4.
      const double steps = quantised(type) ? 4.0 * s.inputs / 32 + 4 : s.inputs;
      double worst = 0;
      for (std::int64_t r = 0; r < s.rows; ++r)
        for (std::int64_t o = 0; o < s.outputs; ++o) {
          const auto want = product(m, o, operands.data() + r * s.inputs);
          const double allowed = 4 * steps * 0x1p-24 * want.magnitude + 1e-30;
          const double off = std::fabs(y[r * s.outputs + o] - want.value);
          worst = std::max(worst, off / allowed);
        }
      INFO(name_of(type) << " " << s.outputs << "x" << s.inputs << ", rows "
                         << s.rows);
      CHECK(worst < 1);
    }
}

TEST_CASE("int8 activations keep a product within half a step per input") {
  random_numbers random{2};
  const auto ops = best_backend(1);
  for (const auto type : all_types) {
    if (!quantised(type))
      continue;
    const auto cols = whole_blocks(type, 576);
    const auto m = random_matrix(type, 40, cols, random);
    const auto x = random.values(4 * cols, 3.0f);
    const auto w = load(*ops, m);
    const auto y = apply(*ops, *w, x, 4);
    const std::vector<double> exact(x.begin(), x.end());
    double worst = 0;
    for (int r = 0; r < 4; ++r)
      for (int o = 0; o < 40; ++o) {
        const auto want = product(m, o, exact.data() + r * cols);
        double allowed = 0; // half a step is a / 254, and a <= 3
        for (int k = 0; k < cols; ++k)
          allowed += std::fabs(m.values[o * cols + k]) * 3.0 / 253;
        worst =
            std::max(worst, std::fabs(y[r * 40 + o] - want.value) / allowed);
      }
    INFO(name_of(type));
    CHECK(worst < 1);
  }
}

TEST_CASE("all instruction sets give the same bits for a product") {
  random_numbers random{3};
  auto all = backends();
  for (const auto type : all_types)
    for (auto s : shapes) {
      s.inputs = whole_blocks(type, s.inputs);
      const auto m = random_matrix(type, s.outputs, s.inputs, random);
      const auto x = random.values(s.rows * s.inputs, 2.5f);
      std::vector<float> first;
      for (auto& each : all) {
        const auto y = apply(*each.ops, *load(*each.ops, m), x, s.rows);
        if (first.empty())
          first = y;
        INFO(each.name << " " << name_of(type) << " " << s.outputs << "x"
                       << s.inputs << ", rows " << s.rows);
        CHECK(same_bits(first, y));
      }
    }
}

TEST_CASE("a row's product is the same alone and among any number of rows") {
  random_numbers random{4};
  for (auto& each : backends()) {
    for (const auto type : all_types) {
      const auto cols = whole_blocks(type, 96);
      const auto m = random_matrix(type, 35, cols, random);
      const auto w = load(*each.ops, m);
      const auto x = random.values(64 * cols);
      std::vector<float> alone;
      for (int r = 0; r < 64; ++r) {
        const std::vector<float> row(x.begin() + r * cols,
                                     x.begin() + (r + 1) * cols);
        const auto y = apply(*each.ops, *w, row, 1);
        alone.insert(alone.end(), y.begin(), y.end());
      }
      for (int rows = 2; rows <= 64; ++rows) {
        auto y = apply(*each.ops, *w, x, rows);
        INFO(each.name << " " << name_of(type) << ", rows " << rows);
        CHECK(same_bits(y, {alone.begin(), alone.begin() + rows * 35}));
      }
    }
  }
}

TEST_CASE("the number of threads does not change a product") {
  random_numbers random{5};
  for (const auto type : all_types) {
    const auto cols = whole_blocks(type, 320);
    const auto m = random_matrix(type, 530, cols, random);
    const auto x = random.values(37 * cols);
    const auto one = best_backend(1);
    const auto want = apply(*one, *load(*one, m), x, 37);
    for (const int threads : {2, 3}) {
      const auto ops = best_backend(threads);
      const auto w = load(*ops, m);
      INFO(name_of(type) << ", threads " << threads);
      for (int repeat = 0; repeat < 20; ++repeat)
        REQUIRE(same_bits(apply(*ops, *w, x, 37), want));
    }
  }
}

TEST_CASE("stacked weights of different types compute what each does alone") {
  random_numbers random{6};
  for (auto& each : backends()) {
    const auto q = random_matrix(element_type::q4_k, 23, 256, random);
    const auto k = random_matrix(element_type::q8_0, 16, 256, random);
    const auto v = random_matrix(element_type::bf16, 9, 256, random);
    const matrix_view views[] = {q.view(), k.view(), v.view()};
    const auto stacked = each.ops->load(views).value();
    REQUIRE(stacked->rows() == 48);
    const auto x = random.values(3 * 256);
    const auto y = apply(*each.ops, *stacked, x, 3);
    std::int64_t first = 0;
    for (const auto* part : {&q, &k, &v}) {
      const auto alone = apply(*each.ops, *load(*each.ops, *part), x, 3);
      for (int r = 0; r < 3; ++r) {
        const auto* from = y.data() + r * 48 + first;
        CHECK(same_bits({from, from + part->rows},
                        {alone.begin() + r * part->rows,
                         alone.begin() + (r + 1) * part->rows}));
      }
      first += part->rows;
    }
  }
}

TEST_CASE("gates joined with their product are as one after the other") {
  random_numbers random{31};
  for (auto& each : backends(2))
    for (const auto type : {element_type::bf16, element_type::q8_0})
      for (const std::int64_t n : {16, 24, 33, 96})
        for (const std::int64_t rows : {1, 5, 16, 17, 48, 70}) {
          const auto gates = random_matrix(type, n, 96, random);
          const auto ups = random_matrix(type, n, 96, random);
          const matrix_view views[] = {gates.view(), ups.view()};
          const auto w = each.ops->load(views).value();
          const auto x = random.values(rows * 96, 3.0f);
          const auto norm = each.ops->upload(random.values(96));
          std::vector<float> normed(x.size()), products(rows * 2 * n);
          for (const auto how : {gate::silu, gate::gelu, gate::erf_gelu})
            for (const bool norms : {false, true}) {
              auto from = x;
              if (norms)
                each.ops->rms_norm(x.data(), *norm, 1e-5f, rows, 96,
                                   from.data());
              std::vector<float> want(rows * n);
              each.ops->linear(*w, from.data(), rows, products.data(), false);
              each.ops->multiply_gates(how, products.data(), rows, n,
                                       want.data());
              joined_steps with;
              with.norm = norms ? norm.get() : nullptr;
              with.epsilon = 1e-5f;
              with.normed = normed.data();
              with.gated = how;
              with.products = products.data();
              auto got = poisoned(rows * n);
              each.ops->linear_joined(*w, x.data(), rows, with, got.data());
              INFO(each.name << ", " << name_of(type) << ", " << n
                             << " outputs, " << rows << " rows");
              CHECK(same_bits(want, got));
            }
        }
}

TEST_CASE("with add a product is added to what is there, rounded once") {
  random_numbers random{7};
  for (auto& each : backends())
    for (const auto type : all_types) {
      const auto cols = whole_blocks(type, 64);
      const auto m = random_matrix(type, 21, cols, random);
      const auto w = load(*each.ops, m);
      const auto x = random.values(5 * cols), before = random.values(5 * 21);
      const auto y = apply(*each.ops, *w, x, 5);
      auto sum = before;
      each.ops->linear(*w, x.data(), 5, sum.data(), true);
      auto want = before;
      for (std::size_t i = 0; i < want.size(); ++i)
        want[i] = before[i] + y[i];
      CHECK(same_bits(sum, want));
    }
}

TEST_CASE("extreme activations give the same bits everywhere and no surprise") {
  random_numbers random{8};
  constexpr float tiny = 1e-42f; // subnormal
  const float infinity = std::numeric_limits<float>::infinity();
  struct fill {
    const char* name;
    float value;
    bool finite;
  };
  const fill fills[] = {{"zero", 0, true},
                        {"minus zero", -0.0f, true},
                        {"1e30", 1e30f, true},
                        {"subnormal", tiny, true},
                        {"3e38", 3e38f, true},
                        {"2^-100", 0x1p-100f, true},
                        {"infinity", infinity, false},
                        {"NaN", std::nanf(""), false}};
  auto all = backends();
  for (const auto type : all_types) {
    const auto cols = whole_blocks(type, 128);
    const auto m = random_matrix(type, 19, cols, random);
    for (const auto& f : fills) {
      auto x = random.values(3 * cols);
      for (int i = cols + 32; i < cols + 64; ++i)
        x[i] = i % 2 == 0 ? f.value : -f.value;
      std::vector<float> first;
      for (auto& each : all) {
        const auto y = apply(*each.ops, *load(*each.ops, m), x, 3);
        if (first.empty())
          first = y;
        INFO(each.name << " " << name_of(type) << " " << f.name);
        CHECK(same_bits(first, y));
        for (int o = 0; o < 19; ++o) {
          CHECK(std::isfinite(y[o]));
          CHECK(std::isfinite(y[38 + o]));
          if (f.finite && f.value < 1e31f)
            CHECK(std::isfinite(y[19 + o]));
          if (!f.finite && quantised(type))
            CHECK(std::isnan(y[19 + o]));
        }
      }
    }
  }
}

TEST_CASE("what a matrix unit would take for 0 is 0 on every set") {
  // Powers of two around the least that counts (2^-56), as weights in bf16 and
  // as inputs: products are subnormal, or would leave something subnormal.
  const std::int64_t cols = 64;
  std::vector<float> numbers;
  for (int e = -133; e <= -40; ++e)
    for (const float sign : {1.0f, -1.0f})
      numbers.push_back(std::ldexp(sign * 1.5f, e));
  matrix m{element_type::bf16, 19, cols, {}, {}};
  for (std::int64_t i = 0; i < m.rows * cols; ++i) {
    const float w = numbers[static_cast<std::size_t>(i * 7) % numbers.size()];
    const auto* bytes = reinterpret_cast<const std::byte*>(&w);
    m.bytes.insert(m.bytes.end(), bytes + 2, bytes + 4);
    m.values.push_back(std::fabs(w) < 0x1p-56f ? 0 : double{w});
  }
  const std::int64_t rows = 18;
  std::vector<float> x;
  std::vector<double> operands;
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    x.push_back(numbers[static_cast<std::size_t>(i * 11) % numbers.size()]);
    operands.push_back(std::fabs(x.back()) < 0x1p-56f ? 0 : double{x.back()});
  }
  for (auto& each : backends()) {
    INFO(each.name);
    const auto y = apply(*each.ops, *load(*each.ops, m), x, rows);
    bool equal = true; // powers of two: each sum is exact, or nearly
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t o = 0; o < m.rows; ++o) {
        const auto want = product(m, o, operands.data() + r * cols);
        equal &= std::fabs(y[r * m.rows + o] - want.value) <=
                 64 * 0x1p-24 * want.magnitude;
      }
    CHECK(equal);
    CHECK(same_bits(
        y, apply(*plain_backend(), *load(*plain_backend(), m), x, rows)));
  }
}

TEST_CASE("weights at the ends of their range do not saturate") {
  const std::vector<float> x(512, 1.0f);
  for (auto& each : backends())
    for (const auto type : all_types) {
      if (!quantised(type))
        continue;
      // The least and the greatest of what is stored, and -128 as a byte.
      for (const std::uint8_t byte : {0x00, 0xff, 0x80}) {
        const auto m = filled_matrix(type, 16, 512, byte);
        const auto y = apply(*each.ops, *load(*each.ops, m), x, 1);
        const auto want = product(m, 0, std::vector<double>(512, 1).data());
        INFO(each.name << " " << name_of(type) << " " << int{byte});
        for (const float one : y) // d = 1 / 127 rounds, so do 16 sums
          CHECK(std::fabs(one - want.value) <=
                1e-5 * want.magnitude + std::fabs(1e-5 * want.value));
      }
    }
}

TEST_CASE("embedding reads back the weight's rows") {
  random_numbers random{9};
  for (auto& each : backends(2))
    for (const auto type : all_types) {
      const auto cols = whole_blocks(type, 96);
      const auto m = random_matrix(type, 37, cols, random);
      const auto w = load(*each.ops, m);
      const std::vector<std::int32_t> ids{36, 0, 16, 15, 36};
      auto out = poisoned(ids.size() * cols);
      each.ops->embed(*w, ids, out.data());
      std::vector<float> rows, want;
      const auto layout = layout_of(type);
      for (std::size_t at = 0; at < m.bytes.size(); at += layout.bytes)
        append_block(type, m.bytes.data() + at, rows);
      for (const auto id : ids)
        want.insert(want.end(), rows.begin() + id * cols,
                    rows.begin() + (id + 1) * cols);
      INFO(each.name << " " << name_of(type));
      CHECK(same_bits(out, want));
    }
}

TEST_CASE("a weight whose bytes do not fit is refused") {
  random_numbers random{10};
  const auto ops = best_backend(1);
  auto m = random_matrix(element_type::q4_0, 4, 64, random);
  const auto refused = [&](std::vector<matrix_view> views) {
    return !ops->load(views).has_value();
  };
  CHECK(refused({}));
  auto view = m.view();
  view.bytes = view.bytes.first(view.bytes.size() - 1);
  CHECK(refused({view}));
  view = m.view();
  view.rows = 5;
  CHECK(refused({view}));
  view = m.view();
  view.cols = 63;
  CHECK(refused({view}));
  view = m.view();
  view.rows = -4;
  CHECK(refused({view}));
  const auto other = random_matrix(element_type::f32, 4, 32, random);
  CHECK(refused({m.view(), other.view()}));
  CHECK_FALSE(refused({m.view()}));
}
