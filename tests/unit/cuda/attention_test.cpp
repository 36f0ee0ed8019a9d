#include "cuda/kernels/attention_shape.hpp"
#include "cuda/step_lists.hpp"
#include "engine/ops/dense_layout.hpp"
#include "tests/unit/cuda/tested_device.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <stdexcept>

using namespace troupe;
using namespace troupe::test;

// Attention against sums in double, and its bits in all the ways in which a
// step may be divided.

namespace {

struct shape {
  std::int32_t heads, kv_heads, head_dim, block_tokens;
};

struct way {
  const char* what;
  std::int32_t window = 0;
  float soft_cap = 0;
  std::int32_t ahead = 0;
};

/// A row of a step.
struct row {
  std::int32_t sequence, position;
};

/// Numbers of which every f16, and every e4m3, keeps all bits.
float kept_exactly(float x) {
  return std::clamp(std::round(x * 8), -15.0f, 15.0f) / 8;
}

/// Sequences whose keys and values lie in blocks of odd order.
class stored_sequences {
public:
  stored_sequences(const shape& of, std::vector<std::int32_t> lengths)
      : of_(of), lengths_(std::move(lengths)) {
    std::mt19937_64 random{5};
    std::normal_distribution<float> normal;
    for (auto length : lengths_) {
      begins_.push_back(static_cast<std::int32_t>(qkv_.size() / stride()));
      for (std::int64_t i = 0; i < length * stride(); ++i) {
        const auto x = normal(random);
        qkv_.push_back(i % stride() < of.heads * of.head_dim ? 3 * x
                                                             : kept_exactly(x));
      }
      auto& table = tables_.emplace_back();
      for (std::int32_t p = 0; p < length; p += of.block_tokens)
        table.insert(table.begin(), blocks_++);
    }
  }

  std::vector<row> all() const {
    std::vector<row> out;
    for (std::size_t s = 0; s < lengths_.size(); ++s)
      for (std::int32_t p = 0; p < lengths_[s]; ++p)
        out.push_back({static_cast<std::int32_t>(s), p});
    return out;
  }

  /// What each row of a step gets, over the keys and values of all.
  std::vector<std::vector<float>> attend(ops::backend& by, const way& how,
                                         const std::vector<row>& rows) const {
    auto pool = by.make_kv_pool({1, of_.kv_heads, of_.head_dim,
                                 of_.block_tokens, blocks_})
                    .value();
    auto stored = by.upload(qkv_);
    const step before{*this, all()};
    ops::rope_params none;
    none.dims = 0;
    by.rope_and_store(stored->data(), of_.heads, none, before.view(), 0, *pool);
    const step now{*this, rows};
    auto in = by.allocate(static_cast<std::int64_t>(rows.size()) * stride());
    by.gather_rows(stored->data(), now.places, stride(), in->data());
    const std::int64_t width = of_.heads * of_.head_dim;
    auto out = by.allocate(static_cast<std::int64_t>(rows.size()) * width);
    by.attention(in->data(),
                 {of_.heads, scale, how.soft_cap, how.window, how.ahead},
                 now.view(), 0, *pool, out->data());
    const auto got = downloaded(by, *out);
    std::vector<std::vector<float>> of_rows;
    for (std::size_t r = 0; r < rows.size(); ++r)
      of_rows.emplace_back(got.begin() + r * width,
                           got.begin() + (r + 1) * width);
    return of_rows;
  }

  /// The same in double, of queries with the bits that f16 has. `end`: behind
  /// the last position of the row's sequence in the step.
  std::vector<double> expected(const way& how, const row& at,
                               std::int32_t end) const {
    const auto d = of_.head_dim;
    const auto number = [&](std::int32_t p, std::int32_t i) -> double {
      return qkv_[(begins_[at.sequence] + p) * stride() + i];
    };
    const auto first = how.window > 0 ? at.position + 1 - how.window : 0;
    const auto last =
        std::min<std::int64_t>(std::int64_t{at.position} + how.ahead, end - 1);
    std::vector<double> out(of_.heads * d);
    for (std::int32_t h = 0; h < of_.heads; ++h) {
      const auto k = (of_.heads + h / (of_.heads / of_.kv_heads)) * d;
      const auto v = k + of_.kv_heads * d;
      std::vector<double> scores;
      for (auto p = std::max(first, 0); p <= last; ++p) {
        double score = 0;
        for (std::int32_t i = 0; i < d; ++i)
          score += rounded(number(at.position, h * d + i)) * number(p, k + i);
        score *= double{scale};
        scores.push_back(how.soft_cap > 0
                             ? how.soft_cap * std::tanh(score / how.soft_cap)
                             : score);
      }
      const auto most = *std::max_element(scores.begin(), scores.end());
      double all = 0;
      for (std::size_t i = 0; i < scores.size(); ++i) {
        const auto weight = std::exp(scores[i] - most);
        all += weight;
        const auto p = std::max(first, 0) + static_cast<std::int32_t>(i);
        for (std::int32_t j = 0; j < d; ++j)
          out[h * d + j] += weight * number(p, v + j);
      }
      for (std::int32_t j = 0; j < d; ++j)
        out[h * d + j] /= all;
    }
    return out;
  }

private:
  static constexpr float scale = 0.1f;

  /// To 11 bits.
  static double rounded(double x) {
    int exponent = 0;
    const auto fraction = std::frexp(x, &exponent);
    return std::ldexp(std::nearbyint(std::ldexp(fraction, 11)), exponent - 11);
  }

  struct step {
    step(const stored_sequences& of, const std::vector<row>& rows) {
      for (const auto& r : rows) {
        positions.push_back(r.position);
        sequences.push_back(r.sequence);
        places.push_back(of.begins_[r.sequence] + r.position);
      }
      for (const auto& table : of.tables_)
        tables.push_back(table);
    }
    ops::batch_view view() const {
      return {positions, sequences, tables};
    }
    std::vector<std::int32_t> positions, sequences, places;
    std::vector<std::span<const std::int32_t>> tables;
  };

  std::int64_t stride() const {
    return (of_.heads + 2 * of_.kv_heads) * of_.head_dim;
  }

  shape of_;
  std::vector<std::int32_t> lengths_;
  std::vector<float> qkv_;
  std::vector<std::int32_t> begins_;
  std::vector<std::vector<std::int32_t>> tables_;
  std::int32_t blocks_ = 0;
};

/// To the bit: no number is equal to itself here, and 0 is not -0.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Weights are rounded to f16, values go up to 2.
constexpr double near = 6e-4;

std::vector<row> rows_of(std::int32_t sequence, std::int32_t from,
                         std::int32_t to) {
  std::vector<row> out;
  for (auto p = from; p < to; ++p)
    out.push_back({sequence, p});
  return out;
}

/// Many rows of one sequence, a few of another, one of a third.
void check_shape(ops::backend& gpu, const shape& of, const way& how) {
  INFO(how.what << ", heads " << of.heads << " / " << of.kv_heads << " of "
                << of.head_dim << ", blocks of " << of.block_tokens);
  // The emulator is slow: not all are over a border of parts.
  const bool is_wide = of.head_dim * of.heads > 256;
  const std::int32_t length = is_wide ? 70 : 262;
  const stored_sequences all{of, {length, 9, 1}};
  auto step = rows_of(0, length - (is_wide ? 9 : 12), length);
  for (auto [s, p] : {std::pair{1, 3}, {1, 4}, {2, 0}})
    step.push_back({s, p});
  const auto got = all.attend(gpu, how, step);
  for (std::size_t r = 0; r < step.size(); ++r) {
    const auto end = std::array{length, 5, 1}[step[r].sequence];
    const auto expected = all.expected(how, step[r], end);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      INFO("sequence " << step[r].sequence << ", position " << step[r].position
                       << ", number " << i);
      REQUIRE(std::abs(got[r][i] - expected[i]) < near);
    }
  }
}

} // namespace

TEST_CASE("attention of all shapes is that of sums in double") {
  const auto kv = GENERATE(ops::kv_type::f16, ops::kv_type::e4m3);
  auto gpu = make_gpu({}, kv); // which takes a while where it is one
  for (const auto& of :
       {shape{1, 1, 1, 1}, shape{2, 2, 32, 16}, shape{3, 1, 10, 3},
        shape{4, 2, 40, 7}, shape{14, 2, 64, 16}, shape{16, 1, 72, 5},
        shape{20, 1, 24, 100}, shape{7, 1, 128, 16}, shape{2, 1, 200, 16},
        shape{3, 1, 256, 9}, shape{2, 2, 500, 16}, shape{1, 1, 512, 16}})
    for (const auto& how : {way{"all before it"}, way{"a window", 50, 0, 0},
                            way{"a cap and what comes after", 0, 2, 5}})
      check_shape(*gpu, of, how);
}

TEST_CASE("a row's attention has the same bits however the step is divided") {
  using ops::kv_type;
  const auto [kv, of] = GENERATE(std::pair{kv_type::f16, shape{3, 1, 16, 16}},
                                 std::pair{kv_type::f16, shape{17, 1, 8, 16}},
                                 std::pair{kv_type::f16, shape{1, 1, 160, 16}},
                                 std::pair{kv_type::e4m3, shape{2, 2, 64, 7}});
  const auto how = GENERATE(way{"all before it"}, way{"a window", 70, 0, 0},
                            way{"a wide window and a cap", 200, 3, 0});
  INFO(how.what << ", heads " << of.heads << " / " << of.kv_heads << " of "
                << of.head_dim);
  // Over two borders of parts, since the order of two sums is none.
  const std::int32_t length = of.head_dim == 16   ? 530
                              : of.head_dim == 64 ? 300
                                                  : 80;
  const stored_sequences all{of, {length, 130}};
  auto gpu = make_gpu({}, kv);
  const auto whole = all.attend(*gpu, how, rows_of(0, 0, length));
  auto check = [&](ops::backend& by, std::vector<row> step, const char* what) {
    INFO(what);
    const auto got = all.attend(by, how, step);
    for (std::size_t r = 0; r < step.size(); ++r) {
      INFO("position " << step[r].position);
      if (step[r].sequence == 0)
        REQUIRE(same(got[r], whole[step[r].position]));
    }
  };
  check(*gpu, rows_of(0, length - 9, length), "a chunk");
  check(*gpu, rows_of(0, 13, 13 + 57), "another chunk");
  std::vector<row> some;
  for (auto p : {0, 1, 62, 63, 64, length - 45, length - 1}) {
    check(*gpu, {{0, p}}, "alone");
    some.push_back({0, p});
  }
  check(*gpu, some, "rows that do not follow each other");
  auto company = rows_of(1, 100, 130);
  company.insert(company.begin(), {0, length - 1});
  check(*gpu, company, "beside another's chunk");
  company = rows_of(0, length - 20, length);
  company.push_back({1, 129});
  check(*gpu, company, "a chunk beside another's row");
  if (on_gpu())
    return; // it divides few rows by itself
  for (bool runs_backwards : {false, true}) {
    auto divided = make_gpu(
        {.blocks_wanted = 1'000'000, .runs_backwards = runs_backwards}, kv);
    check(*divided, some, "in parts");
    check(*divided, rows_of(0, length - 9, length), "a chunk, in parts");
    for (auto p : {0, 63, length - 1})
      check(*divided, {{0, p}}, "alone, in parts");
  }
}

TEST_CASE("a prompt's last rows have the same bits in parts") {
  using ops::kv_type;
  const auto [kv, of] = GENERATE(std::pair{kv_type::f16, shape{7, 1, 8, 16}},
                                 std::pair{kv_type::f16, shape{2, 1, 136, 5}},
                                 std::pair{kv_type::f16, shape{2, 2, 64, 16}},
                                 std::pair{kv_type::e4m3, shape{4, 2, 32, 16}});
  const auto how = GENERATE(way{"all before it"}, way{"a window", 300, 0, 0},
                            way{"a short window", 5, 0, 0},
                            way{"a cap and what comes after", 0, 2, 5});
  INFO(how.what << ", heads " << of.heads << " / " << of.kv_heads << " of "
                << of.head_dim);
  constexpr std::int32_t length = 530;
  const stored_sequences all{of, {length, 300, 140}};
  auto gpu = make_gpu({}, kv);
  auto check = [&](ops::backend& by, const std::vector<row>& step) {
    const auto expected = all.attend(*gpu, how, step);
    const auto got = all.attend(by, how, step);
    for (std::size_t r = 0; r < step.size(); ++r) {
      INFO("sequence " << step[r].sequence << ", position " << step[r].position
                       << ", one of " << step.size());
      REQUIRE(same(got[r], expected[r]));
    }
  };
  for (bool runs_backwards : {false, true}) {
    auto divided = make_gpu(
        {.blocks_wanted = 1'000'000, .runs_backwards = runs_backwards}, kv);
    check(*divided, rows_of(0, length - 8, length));
    auto step = rows_of(0, length - 70, length); // two tiles
    step.push_back({1, 299});
    for (const auto& one : rows_of(2, 120, 140))
      step.push_back(one);
    check(*divided, step);
  }
}

TEST_CASE("prompts whose parts there is no room to count are not divided") {
  if (on_gpu())
    return; // as so many blocks are not
  constexpr std::int32_t heads = 128, sequences = 9, length = 390;
  static_assert(heads * sequences > ops::gpu_part_counts);
  const stored_sequences all{{heads, heads, 1, 16},
                             std::vector<std::int32_t>(sequences, length)};
  std::vector<row> step;
  for (std::int32_t s = 0; s < sequences; ++s)
    for (const auto& one : rows_of(s, length - 8, length))
      step.push_back(one);
  const way how{"all before it"};
  const auto expected = all.attend(*make_gpu(), how, step);
  const auto got =
      all.attend(*make_gpu({.blocks_wanted = 1'000'000}), how, step);
  for (std::size_t r = 0; r < step.size(); ++r)
    REQUIRE(same(got[r], expected[r]));
}

TEST_CASE("rows whose parts there is no room to count are the next launch's, "
          "also after one that failed") {
  if (on_gpu())
    return; // it divides no step of so many rows
  constexpr std::int32_t rows = ops::gpu_part_counts / 16 + 3;
  const shape of{16, 16, 2, 16};
  const way how{"a window over a border", 9, 0, 0};
  const stored_sequences all{of, {260, 260}};
  // In turn, so that each row is taken for a sequence of its own.
  std::vector<row> step;
  for (std::int32_t i = 0; i < rows; ++i)
    step.push_back({i % 2, 259 - i % 7});
  const auto whole = all.attend(*make_gpu(), how, step);
  cuda::emulated_usage usage;
  std::size_t fails_at = 0;
  auto divided = make_gpu(
      {.blocks_wanted = 1'000'000, .usage = &usage, .before_kernel = [&] {
         if (usage.launches == fails_at)
           throw std::runtime_error{"a failure"};
       }});
  const auto check = [&] {
    const auto got = all.attend(*divided, how, step);
    for (std::size_t r = 0; r < step.size(); ++r)
      REQUIRE(same(got[r], whole[r]));
  };
  check();
  CHECK(usage.launches == 4); // stores, gathers, attends twice
  fails_at = 2 * usage.launches;
  CHECK_THROWS_AS(check(), std::runtime_error); // between the two
  check();
}

TEST_CASE("rows that see all of their sequence have the same bits in any "
          "company") {
  const shape of{2, 1, 24, 16};
  const way how{"all", 0, 0, ops::all_ahead};
  const stored_sequences all{of, {100, 3, 20}};
  auto gpu = make_gpu();
  const auto together = all.attend(*gpu, how, all.all());
  std::size_t at = 0;
  for (auto [s, length] : {std::pair{0, 100}, {1, 3}, {2, 20}}) {
    const auto alone = all.attend(*gpu, how, rows_of(s, 0, length));
    for (std::int32_t p = 0; p < length; ++p, ++at) {
      REQUIRE(same(alone[p], together[at]));
      const auto expected = all.expected(how, {s, p}, length);
      for (std::size_t i = 0; i < expected.size(); ++i)
        REQUIRE(std::abs(together[at][i] - expected[i]) < near);
    }
  }
}

TEST_CASE("a score is right whatever the size of a query") {
  // f16 has neither the smallest of them nor the largest.
  auto gpu = make_gpu();
  for (float size : {1e-30f, 1e-3f, 1.0f, 1e4f, 1e8f}) {
    INFO(size);
    constexpr std::int32_t d = 8, stride = 3 * d;
    constexpr float more = 1.25f;
    std::vector<float> qkv(2 * stride);
    float* second = qkv.data() + stride; // q, k, v; the first is 0
    second[0] = size * more;
    second[1] = size;
    second[d] = 1;
    second[d + 1] = -1;
    second[2 * d] = 1;
    const std::vector<std::int32_t> positions{0, 1}, sequences{0, 0}, table{0};
    const std::vector<std::span<const std::int32_t>> tables{table};
    const ops::batch_view both{positions, sequences, tables};
    auto pool = gpu->make_kv_pool({1, 1, d, 16, 1}).value();
    auto in = gpu->upload(qkv);
    ops::rope_params none;
    none.dims = 0;
    gpu->rope_and_store(in->data(), 1, none, both, 0, *pool);
    auto out = gpu->allocate(2 * d);
    gpu->attention(in->data(), {1, 1 / (more - 1) / size, 0, 0, 0}, both, 0,
                   *pool, out->data());
    // The second's score is 1, the first's 0.
    CHECK(downloaded(*gpu, *out)[d] ==
          Approx(1 / (1 + std::exp(-1.0))).margin(2e-3));
  }
}

TEST_CASE("what a row does not see counts nothing, whatever it is") {
  // A later value is too large for f16, and a later key is no number.
  constexpr std::int32_t d = 8, rows = 12, stride = 3 * d;
  std::vector<float> qkv(rows * stride, 0.5f);
  qkv[5 * stride + 2 * d] = 1e30f;
  qkv[6 * stride + 2 * d + 1] = NAN;
  qkv[7 * stride + d] = NAN;
  std::vector<std::int32_t> positions(rows);
  for (std::int32_t p = 0; p < rows; ++p)
    positions[p] = p;
  const std::vector<std::int32_t> sequences(rows, 0), table{0};
  const std::vector<std::span<const std::int32_t>> tables{table};
  const ops::batch_view all{positions, sequences, tables};
  auto gpu = make_gpu();
  auto pool = gpu->make_kv_pool({1, 1, d, 16, 1}).value();
  auto in = gpu->upload(qkv);
  ops::rope_params none;
  none.dims = 0;
  gpu->rope_and_store(in->data(), 1, none, all, 0, *pool);
  auto out = gpu->allocate(rows * d);
  gpu->attention(in->data(), {1, 1, 0, 0, 0}, all, 0, *pool, out->data());
  const auto got = downloaded(*gpu, *out);
  for (std::int32_t i = 0; i < 5 * d; ++i)
    REQUIRE(got[i] == Approx(0.5f));
  CHECK(got[5 * d] == Approx((5 * 0.5f + 65504) / 6));
  for (std::int32_t r = 7; r < rows; ++r)
    REQUIRE(std::isnan(got[r * d])); // who sees that key is told so
}

TEST_CASE("rows of a sequence are tiles, those of a short one tiles of one") {
  const std::vector<std::int32_t> positions(1 + 7 + 8 + 65 + 128, 0);
  std::vector<std::int32_t> sequences;
  std::int32_t sequence = 0;
  for (auto rows : {1, 7, 8, 65, 128})
    sequences.insert(sequences.end(), rows, sequence++);
  const std::vector<std::span<const std::int32_t>> tables(5);
  const ops::batch_view batch{positions, sequences, tables};
  const auto counts = cuda::count_tiles(batch);
  CHECK(counts.of_one == 8);
  CHECK(counts.of_many == 1 + 2 + 2);
  const ops::step_input in{{}, batch, {}};
  const auto at = cuda::places_of(in);
  std::vector<std::int32_t> n(at.end, -1);
  cuda::pack_step(in, n);
  const std::vector<std::int32_t> tiles{n.begin() + at.tiles,
                                        n.begin() + at.tiles + 2 * (8 + 5)};
  CHECK(tiles == std::vector<std::int32_t>{0,  1,  1,  1, 2,  1,  3,   1, 4,
                                           1,  5,  1,  6, 1,  7,  1,   8, 8,
                                           16, 64, 80, 1, 81, 64, 145, 64});
}
