#include "kernel_fixture.hpp"

#include "engine/ops/cpu/expert_router.hpp"
#include "engine/ops/cpu/half.hpp"
#include "engine/ops/cpu/kernels.hpp"
#include "engine/ops/cpu/rope_table.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>

using namespace troupe;
using namespace troupe::ops;
using namespace troupe::ops::test;

namespace {

std::vector<std::pair<const char*, const cpu::kernel_table*>> tables() {
  std::vector<std::pair<const char*, const cpu::kernel_table*>> out{
      {"plain", &cpu::plain_kernels()}};
  if (cpu::machine_has(cpu::instruction_set::avx2))
    out.emplace_back("avx2", &cpu::avx2_kernels());
  if (cpu::machine_has(cpu::instruction_set::avx512))
    out.emplace_back("avx512", &cpu::avx512_kernels());
  if (cpu::machine_has(cpu::instruction_set::amx))
    out.emplace_back("amx", &cpu::amx_kernels());
  return out;
}

std::vector<float> all_kinds_of_floats() {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> x{0.0f,     -0.0f,      1e-45f,    -1e-40f,
                       0x1p-25f, 0x1.8p-25f, 0x1p-24f,  6.1e-5f,
                       65504.0f, 65519.9f,   65520.0f,  1e30f,
                       -3.4e38f, infinity,   -infinity, std::nanf("")};
  random_numbers random{30};
  for (int i = 0; i < 200000; ++i)
    x.push_back(std::bit_cast<float>(random.bits()));
  for (int i = 0; i < 50000; ++i)
    x.push_back(random.value());
  return x;
}

} // namespace

TEST_CASE("every half survives the way to float and back") {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = cpu::from_f16(half);
    if (std::isnan(value))
      continue;
    const double fraction = bits & 1023;
    const int exponent = (bits >> 10) & 31;
    double want = exponent == 0 ? std::ldexp(fraction, -24)
                                : std::ldexp(fraction + 1024, exponent - 25);
    if (exponent == 31)
      want = std::numeric_limits<double>::infinity();
    REQUIRE(value == (bits & 0x8000 ? -want : want));
    REQUIRE(cpu::to_f16(value) == half);
  }
}

TEST_CASE("all instruction sets round to half alike") {
  const auto x = all_kinds_of_floats();
  std::vector<std::uint16_t> want(x.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    want[i] = cpu::to_f16(x[i]);
  for (const auto& [name, kernels] : tables()) {
    std::vector<std::uint16_t> got(x.size());
    kernels->to_f16(x.data(), x.size(), got.data());
    INFO(name);
    CHECK(got == want);
  }
}

TEST_CASE("exp is exact to 2e-7 and the same everywhere") {
  std::vector<float> x;
  for (float v = -87.3f; v < 88.36f; v += 0.00137f)
    x.push_back(v);
  std::vector<float> first;
  for (const auto& [name, kernels] : tables()) {
    std::vector<float> y(x.size());
    kernels->exp(x.data(), x.size(), y.data());
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = std::exp(double{x[i]});
      worst = std::max(worst, std::fabs(y[i] - want) / want);
    }
    INFO(name);
    CHECK(worst < 2e-7);
    if (first.empty())
      first = y;
    CHECK(same_bits(first, y));
  }
}

TEST_CASE("exp of anything gives the same bits everywhere") {
  const auto x = all_kinds_of_floats();
  std::vector<float> first;
  for (const auto& [name, kernels] : tables()) {
    std::vector<float> y(x.size());
    kernels->exp(x.data(), x.size(), y.data());
    if (first.empty())
      first = y;
    INFO(name);
    CHECK(same_bits(first, y));
    CHECK(y[0] == 1.0f);
    CHECK(y[11] == std::numeric_limits<float>::infinity());
    CHECK(y[12] == 0.0f);
    CHECK(std::isnan(y[15]));
  }
}

TEST_CASE("rms norm matches double and is the same everywhere") {
  random_numbers random{31};
  auto all = backends();
  for (const std::int64_t cols : {32, 33, 576, 1536, 1541}) {
    const auto x = random.values(5 * cols, 3.0f), w = random.values(cols);
    std::vector<float> first;
    for (auto& each : all) {
      auto out = poisoned(5 * cols);
      const auto weights = each.ops->upload(w);
      each.ops->rms_norm(x.data(), *weights, 1e-5f, 5, cols, out.data());
      double worst = 0;
      for (int r = 0; r < 5; ++r) {
        double squares = 0;
        for (std::int64_t i = 0; i < cols; ++i)
          squares += double{x[r * cols + i]} * x[r * cols + i];
        const double factor = 1 / std::sqrt(squares / cols + 1e-5);
        for (std::int64_t i = 0; i < cols; ++i) {
          const double want = x[r * cols + i] * factor * w[i];
          worst = std::max(worst, std::fabs(out[r * cols + i] - want) /
                                      (std::fabs(want) + 1e-30));
        }
      }
      INFO(each.name << ", columns " << cols);
      // At most cols / 16 + 4 additions of one sign, then five roundings.
      CHECK(worst < (cols / 16 + 10) * 0x1p-24);
      if (first.empty())
        first = out;
      CHECK(same_bits(first, out));
    }
  }
}

namespace {

/// Runs an activation on random gates up to `size` and one of -100, whose exp
/// is infinite; returns the worst difference from `want`(gate, up), as
/// `measure` has it, on any instruction set. The sets give the same bits.
template <class Want, class Measure>
void check_activation(void (backend::*op)(const float*, std::int64_t,
                                          std::int64_t, float*),
                      float size, Want want, Measure measure, double allowed) {
  random_numbers random{32};
  for (const std::int64_t n : {1, 16, 35, 1536}) {
    auto x = random.values(3 * 2 * n, size);
    x[0] = -100.0f;
    std::vector<float> first;
    for (auto& each : backends()) {
      auto out = poisoned(3 * n);
      ((*each.ops).*op)(x.data(), 3, n, out.data());
      double worst = 0;
      for (int r = 0; r < 3; ++r)
        for (std::int64_t i = 0; i < n; ++i) {
          const double right = want(x[r * 2 * n + i], x[r * 2 * n + n + i]);
          worst = std::max(worst, measure(out[r * n + i], right));
        }
      INFO(each.name << ", n " << n);
      CHECK(worst < allowed);
      if (first.empty())
        first = out;
      CHECK(same_bits(first, out));
    }
  }
}

} // namespace

TEST_CASE("silu times up matches double and is the same everywhere") {
  check_activation(
      &backend::silu_mul, 12.0f,
      [](double g, double up) { return g / (1 + std::exp(-g)) * up; },
      [](double got, double want) {
        return std::fabs(got - want) / (std::fabs(want) + 1e-30);
      },
      2e-7 + 4 * 0x1p-24); // exp, then three roundings
}

TEST_CASE("gelu times up matches double and is the same everywhere") {
  // |g * up| <= 36; the exponent 2u is rounded to float, so exp is off by its
  // size times 2^-23, least where exp matters most.
  check_activation(
      &backend::gelu_mul, 6.0f,
      [](double g, double up) {
        const double u = std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g);
        return 0.5 * g * (1 + std::tanh(u)) * up;
      },
      [](double got, double want) { return std::fabs(got - want); }, 36 * 4e-7);
}

TEST_CASE("gelu by erf times up matches double and is the same everywhere") {
  check_activation(
      &backend::erf_gelu_mul, 6.0f,
      [](double g, double up) {
        return 0.5 * g * std::erfc(-g / std::sqrt(2.0)) * up;
      },
      [](double got, double want) { return std::fabs(got - want); },
      6 * 1e-6); // |up| <= 6
}

TEST_CASE("gelu by erf is right within 1e-6 and the same everywhere") {
  std::vector<float> x;
  for (float v = -20.0f; v < 20.0f; v += 0.00173f)
    x.push_back(v);
  x.insert(x.end(), {1e4f, -1e4f, 3e38f, -3e38f, 1e-30f, 0.0f});
  std::vector<float> first;
  for (auto& each : backends()) {
    auto out = x;
    each.ops->erf_gelu(out.data(), 1, static_cast<std::int64_t>(out.size()));
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want =
          0.5 * double{x[i]} * std::erfc(-double{x[i]} / std::sqrt(2.0));
      const double size = std::max(1.0, std::fabs(want));
      worst = std::max(worst, std::fabs(out[i] - want) / size);
    }
    INFO(each.name);
    CHECK(worst < 1e-6);
    if (first.empty())
      first = out;
    CHECK(same_bits(first, out));
  }
  const auto odd = all_kinds_of_floats();
  first.clear();
  for (auto& each : backends()) {
    auto out = odd;
    each.ops->erf_gelu(out.data(), 1, static_cast<std::int64_t>(out.size()));
    if (first.empty())
      first = out;
    INFO(each.name);
    CHECK(same_bits(first, out));
  }
}

TEST_CASE("layer norm matches double and is the same everywhere") {
  random_numbers random{40};
  auto all = backends();
  for (const std::int64_t cols : {1, 32, 33, 384, 1541}) {
    auto x = random.values(5 * cols, 3.0f);
    for (std::int64_t i = 0; i < cols; ++i)
      x[i] += 40; // a row whose mean is far larger than its spread
    const auto w = random.values(cols), b = random.values(cols);
    std::vector<float> first;
    for (auto& each : all) {
      auto out = poisoned(5 * cols), in_place = x;
      const auto weights = each.ops->upload(w), bias = each.ops->upload(b);
      each.ops->layer_norm(x.data(), *weights, *bias, 1e-5f, 5, cols,
                           out.data());
      each.ops->layer_norm(in_place.data(), *weights, *bias, 1e-5f, 5, cols,
                           in_place.data());
      double worst = 0;
      for (int r = 0; r < 5; ++r) {
        double mean = 0, squares = 0;
        for (std::int64_t i = 0; i < cols; ++i)
          mean += x[r * cols + i] / static_cast<double>(cols);
        for (std::int64_t i = 0; i < cols; ++i)
          squares += (x[r * cols + i] - mean) * (x[r * cols + i] - mean);
        const double factor = 1 / std::sqrt(squares / cols + 1e-5);
        for (std::int64_t i = 0; i < cols; ++i) {
          const double want = (x[r * cols + i] - mean) * factor * w[i] + b[i];
          worst = std::max(worst, std::fabs(out[r * cols + i] - want));
        }
      }
      INFO(each.name << ", columns " << cols);
      // The mean of up to 43 is off by some units of 2^-19, the spread is 1.7.
      CHECK(worst < 3e-5);
      CHECK(same_bits(out, in_place));
      if (first.empty())
        first = out;
      CHECK(same_bits(first, out));
    }
  }
}

TEST_CASE("the mean of rows is that of its rows alone") {
  random_numbers random{41};
  const auto x = random.values(9 * 35);
  const std::vector<std::int32_t> ends{1, 6, 9};
  std::vector<float> first;
  for (auto& each : backends()) {
    auto out = poisoned(3 * 35);
    each.ops->mean_rows(x.data(), ends, 35, out.data());
    for (int i = 0; i < 35; ++i) {
      CHECK(out[i] == x[i]);
      double sum = 0;
      for (int row = 1; row < 6; ++row)
        sum += x[row * 35 + i];
      CHECK(std::fabs(out[35 + i] - sum / 5) < 1e-6);
    }
    const std::vector<std::int32_t> one{5};
    auto alone = poisoned(35);
    each.ops->mean_rows(x.data() + 35, one, 35, alone.data());
    CHECK(same_bits(alone, {out.begin() + 35, out.begin() + 70}));
    if (first.empty())
      first = out;
    INFO(each.name);
    CHECK(same_bits(first, out));
  }
}

TEST_CASE("a soft cap matches double to 5e-7 and is the same everywhere") {
  std::vector<float> x;
  for (float v = -200.0f; v < 200.0f; v += 0.0173f)
    x.push_back(v);
  for (float v = -1e-3f; v < 1e-3f; v += 1.7e-6f)
    x.push_back(v);
  std::vector<float> first;
  for (auto& each : backends()) {
    auto out = x;
    each.ops->soft_cap(out.data(), 30.0f, 1, out.size());
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = 30 * std::tanh(double{x[i]} / 30);
      worst =
          std::max(worst, std::fabs(out[i] - want) / (std::fabs(want) + 1e-30));
    }
    INFO(each.name);
    CHECK(worst < 7e-7); // and a quotient and a product
    if (first.empty())
      first = out;
    CHECK(same_bits(first, out));
    std::vector<float> ends{INFINITY, -INFINITY, NAN, 0.0f};
    each.ops->soft_cap(ends.data(), 30.0f, 1, 4);
    CHECK(ends[0] == 30.0f);
    CHECK(ends[1] == -30.0f);
    CHECK(std::isnan(ends[2]));
    CHECK(ends[3] == 0.0f);
  }
}

TEST_CASE("sums and products of rows round once") {
  random_numbers random{37};
  for (const std::int64_t cols : {1, 16, 37}) {
    const auto x = random.values(2 * cols), y = random.values(2 * cols);
    const auto b = random.values(cols);
    for (auto& each : backends()) {
      auto sum = y, scaled = y, biased = y;
      each.ops->add_scaled(x.data(), 0.22f, 2, cols, sum.data());
      each.ops->scale(scaled.data(), 7.1f, 2, cols);
      const auto bias = each.ops->upload(b);
      each.ops->add_bias(biased.data(), *bias, 2, cols);
      for (std::int64_t i = 0; i < 2 * cols; ++i) {
        REQUIRE(sum[i] == std::fma(0.22f, x[i], y[i]));
        REQUIRE(scaled[i] == y[i] * 7.1f);
        REQUIRE(biased[i] == y[i] + b[i % cols]);
      }
    }
  }
}

TEST_CASE("groups of columns are normalised each by itself") {
  random_numbers random{38};
  const auto x = random.values(3 * 100), w = random.values(16);
  for (auto& each : backends()) {
    const auto weights = each.ops->upload(w);
    auto out = x;
    each.ops->rms_norm_groups(out.data(), {100, 10, 5, 16}, *weights, 1e-6f, 3);
    auto want = x;
    for (int r = 0; r < 3; ++r)
      for (int g = 0; g < 5; ++g) {
        const auto at = r * 100 + 10 + g * 16;
        each.ops->rms_norm(x.data() + at, *weights, 1e-6f, 1, 16,
                           want.data() + at);
      }
    INFO(each.name);
    CHECK(same_bits(want, out));
  }
}

TEST_CASE("experts are chosen by score, best first, of equal ones the first") {
  const std::vector<float> scores{0.5f, 2.0f, -1.0f, 2.0f, 1.0f,
                                  3.0f, 3.0f, 3.0f,  3.0f, 3.0f};
  std::vector<float> first;
  for (auto [name, kernels] : tables())
    for (const bool normalise : {false, true}) {
      std::vector<std::int32_t> experts(6);
      auto shares = poisoned(6);
      cpu::expert_router{}.run(*kernels, scores.data(), 2, 5, normalise,
                               {experts, shares, 3});
      CHECK(experts == std::vector<std::int32_t>{1, 3, 4, 0, 1, 2});
      double all = 0, chosen = 0;
      for (int i = 0; i < 5; ++i)
        all += std::exp(scores[i]);
      for (int i = 0; i < 3; ++i)
        chosen += std::exp(scores[experts[i]]);
      for (int i = 0; i < 3; ++i) {
        const double want =
            std::exp(scores[experts[i]]) / (normalise ? chosen : all);
        CHECK(std::fabs(shares[i] - want) < 1e-6);
        CHECK(std::fabs(shares[3 + i] - (normalise ? 1.0 / 3 : 0.2)) < 1e-6);
      }
      if (normalise)
        continue;
      if (first.empty())
        first = shares;
      INFO(name);
      CHECK(same_bits(first, shares));
    }
}

TEST_CASE("scores that are no numbers choose different experts, the last") {
  const float none = std::nanf("");
  const float infinity = std::numeric_limits<float>::infinity();
  struct row {
    std::vector<float> scores;
    std::vector<std::int32_t> expected;
  };
  for (const auto& one :
       {row{std::vector<float>(7, none), {0, 1, 2, 3}},
        row{{none, 1, none, 3, -infinity, none, 2}, {3, 6, 1, 0}},
        row{{-infinity, none, infinity, 0, infinity, 5, none}, {2, 4, 5, 3}}}) {
    std::vector<std::int32_t> experts(4);
    std::vector<float> shares(4);
    cpu::expert_router{}.run(cpu::plain_kernels(), one.scores.data(), 1, 7,
                             true, {experts, shares, 4});
    CHECK(experts == one.expected);
  }
}

TEST_CASE("a mixture is what its experts give, added in ascending order, and "
          "says what it read") {
  constexpr std::int64_t cols = 40, inner = 24, rows = 5;
  constexpr mixture_params how{4, 2, true, cols, inner};
  random_numbers random{35};
  std::vector<matrix> all;
  std::vector<expert_matrices> views;
  for (int i = 0; i < how.experts; ++i)
    for (auto [outputs, inputs] :
         {std::pair{inner, cols}, {inner, cols}, {cols, inner}})
      all.push_back(random_matrix(element_type::f16, outputs, inputs, random));
  for (std::size_t i = 0; i < all.size(); i += 3)
    views.push_back({all[i].view(), all[i + 1].view(), all[i + 2].view()});
  const auto x = random.values(rows * cols);
  const std::vector<float> scores{1, 0, 2, 0, 0, 3, 1, 0, 5, 5,
                                  0, 0, 1, 0, 2, 0, 0, 0, 2, 1};
  const std::vector<std::vector<int>> chosen{
      {0, 2}, {1, 2}, {0, 1}, {0, 2}, {2, 3}};
  const auto before = random.values(rows * cols);
  for (auto& each : backends()) {
    INFO(each.name);
    auto experts = each.ops->load_experts(views).value();
    auto y = before;
    const auto read = each.ops->mix_experts(*experts, how, x.data(),
                                            scores.data(), rows, y.data());
    CHECK(read == static_cast<std::uint64_t>(experts->bytes()));
    auto want = before;
    for (int r = 0; r < rows; ++r) {
      std::vector<std::int32_t> best(2);
      std::vector<float> shares(2);
      cpu::expert_router{}.run(cpu::plain_kernels(), scores.data() + r * 4, 1,
                               4, true, {best, shares, 2});
      for (auto e : chosen[r]) {
        const std::vector<float> row(x.begin() + r * cols,
                                     x.begin() + (r + 1) * cols);
        const std::vector both{views[e].gate, views[e].up};
        const auto gate_up =
            apply(*each.ops, *each.ops->load(both).value(), row, 1);
        std::vector<float> product(inner);
        each.ops->silu_mul(gate_up.data(), 1, inner, product.data());
        const auto given =
            apply(*each.ops, *each.ops->load({&views[e].down, 1}).value(),
                  product, 1);
        each.ops->add_scaled(given.data(), shares[best[0] == e ? 0 : 1], 1,
                             cols, want.data() + r * cols);
      }
    }
    CHECK(same_bits(want, y));
    // Two rows read three experts.
    CHECK(each.ops->mix_experts(*experts, how, x.data(), scores.data(), 2,
                                y.data()) == 3 * read / 4);
  }
}

TEST_CASE("cosine and sine of large angles are right to 1e-14") {
  random_numbers random{33};
  for (int i = 0; i < 20000; ++i) {
    const double angle =
        i < 100 ? i * 0.785398163397448309616 : random.value() * 131072.0;
    const auto t = cpu::turn_by(angle);
    REQUIRE(std::fabs(t.cosine - std::cos(angle)) < 1e-14);
    REQUIRE(std::fabs(t.sine - std::sin(angle)) < 1e-14);
  }
}

TEST_CASE("rope turns pairs of either kind by the right angles") {
  random_numbers random{34};
  const std::vector<std::int32_t> positions{0, 1, 1000, 130000};
  const std::vector<std::int32_t> owners(4, 0);
  const std::vector<std::int32_t> table(131072 / 16, 0);
  const std::vector<std::span<const std::int32_t>> tables{table};
  for (const float theta : {10000.0f, 1000000.0f})
    for (const bool interleaved : {true, false})
      for (const std::int32_t dims : {64, 32}) {
        rope_params rope{theta, dims, interleaved, {}, 1.0f};
        if (dims == 32)
          for (int i = 0; i < 16; ++i)
            rope.factors.push_back(1.0f + i);
        rope.scale = dims == 32 ? 1.25f : 1.0f;
        const auto x = random.values(4 * (3 + 2 * 1) * 64);
        std::vector<float> first;
        for (auto& each : backends()) {
          const auto pool = each.ops->make_kv_pool({1, 1, 64, 16, 1}).value();
          auto out = x;
          each.ops->rope_and_store(out.data(), 3, rope,
                                   {positions, owners, tables}, 0, *pool);
          double worst = 0;
          for (int r = 0; r < 4; ++r)
            for (int h = 0; h < 5; ++h)
              for (int d = 0; d < 64; ++d) {
                const auto* head = x.data() + (r * 5 + h) * 64;
                double want = head[d];
                const int half = dims / 2;
                if (h < 4 && d < dims) {
                  const int i = interleaved ? d / 2 : d % half;
                  const bool second = interleaved ? d % 2 == 1 : d >= half;
                  const double factor =
                      rope.factors.empty() ? 1 : rope.factors[i];
                  const double angle =
                      positions[r] /
                      (std::pow(double{theta}, 2.0 * i / dims) * factor);
                  const double a = interleaved ? head[2 * i] : head[i];
                  const double b =
                      interleaved ? head[2 * i + 1] : head[i + half];
                  want = second ? a * std::sin(angle) + b * std::cos(angle)
                                : a * std::cos(angle) - b * std::sin(angle);
                  want *= rope.scale;
                }
                worst = std::max(worst,
                                 std::fabs(out[(r * 5 + h) * 64 + d] - want));
              }
          INFO(each.name << ", theta " << theta << ", dims " << dims);
          CHECK(worst < 4 * 0x1p-24); // |x| < 1: two products, a sum, a cosine
          if (first.empty())
            first = out;
          CHECK(same_bits(first, out));
        }
      }
}

TEST_CASE("a rope without dimensions leaves a row as it is") {
  random_numbers random{39};
  const std::vector<std::int32_t> positions{5}, owners{0}, table{0};
  const std::vector<std::span<const std::int32_t>> tables{table};
  const auto x = random.values(3 * 16);
  for (auto& each : backends()) {
    const auto pool = each.ops->make_kv_pool({1, 1, 16, 16, 1}).value();
    auto out = x;
    each.ops->rope_and_store(out.data(), 1, {}, {positions, owners, tables}, 0,
                             *pool);
    CHECK(out == x);
  }
}

TEST_CASE("rows are gathered and downloaded as they are") {
  random_numbers random{35};
  const auto ops = best_backend(2);
  const auto x = random.values(6 * 10);
  const std::vector<std::int32_t> rows{5, 0, 5};
  auto made = ops->allocate(30);
  ops->gather_rows(x.data(), rows, 10, made->data());
  std::vector<float> out(30);
  ops->download(made->data(), out);
  for (int i = 0; i < 3; ++i)
    for (int k = 0; k < 10; ++k)
      CHECK(out[i * 10 + k] == x[rows[i] * 10 + k]);
}

TEST_CASE("memory comes zeroed") {
  const auto ops = best_backend(1);
  const auto made = ops->allocate(1000);
  CHECK(made->size() == 1000);
  for (int i = 0; i < 1000; ++i)
    REQUIRE(made->data()[i] == 0.0f);
}
