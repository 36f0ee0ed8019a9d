#include "kernel_fixture.hpp"

#include "engine/ops/cpu/half.hpp"

#include <catch2/catch.hpp>
#include <cmath>

using namespace troupe;
using namespace troupe::ops;
using namespace troupe::ops::test;

namespace {

struct model_shape {
  std::int32_t heads, kv_heads, head_dim, block_tokens;
  bool bf16 = false; ///< of keys and values, else f16
};

constexpr model_shape shapes[] = {
    {9, 3, 64, 16},        {4, 4, 32, 32},       {8, 1, 16, 16},
    {14, 2, 80, 48},       {2, 1, 128, 64},      {9, 3, 64, 16, true},
    {4, 4, 32, 32, true},  {8, 1, 16, 16, true}, {14, 2, 80, 48, true},
    {2, 1, 128, 64, true}, {1, 1, 48, 16, true}};

std::int64_t row_floats(const model_shape& s) {
  return (s.heads + 2 * s.kv_heads) * s.head_dim;
}

attention_params params_of(const model_shape& s) {
  return {.heads = s.heads,
          .scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim))};
}

/// Sequences of the same length as one step, with blocks in a scattered order.
struct sequences {
  model_shape shape;
  std::int32_t count;
  std::int32_t length;
  std::vector<std::vector<std::int32_t>> tables;
  std::vector<float> qkv; ///< [sequence][position], rope not yet applied

  sequences(const model_shape& s, std::int32_t n, std::int32_t tokens,
            random_numbers& random)
      : shape(s), count(n), length(tokens) {
    const auto blocks = (tokens + s.block_tokens - 1) / s.block_tokens;
    tables.resize(n);
    for (std::int32_t b = 0; b < blocks; ++b)
      for (std::int32_t i = 0; i < n; ++i)
        tables[i].push_back((blocks - 1 - b) * n + i);
    qkv = random.values(std::int64_t{n} * tokens * row_floats(s), 2.0f);
  }

  kv_shape pool_shape() const {
    const auto blocks = count * static_cast<std::int32_t>(tables[0].size());
    return {2,      shape.kv_heads, shape.head_dim, shape.block_tokens,
            blocks, shape.bf16};
  }
};

/// One step: rows of sequence s at positions [from, to).
struct piece {
  std::int32_t sequence, from, to;
};

class session {
public:
  session(backend& ops, const sequences& all)
      : ops_(ops), all_(all), pool_(ops.make_kv_pool(all.pool_shape()).value()),
        out_(poisoned(std::int64_t{all.count} * all.length * width())) {
    rope_.dims = all.shape.head_dim;
    how_ = params_of(all.shape);
  }

  /// Runs a step and keeps its rows of the result.
  void step(const std::vector<piece>& pieces) {
    std::vector<std::int32_t> positions, owners;
    std::vector<float> qkv;
    const auto floats = row_floats(all_.shape);
    for (const auto& p : pieces)
      for (auto position = p.from; position < p.to; ++position) {
        positions.push_back(position);
        owners.push_back(p.sequence);
        const auto* row = all_.qkv.data() + at(p.sequence, position) * floats;
        qkv.insert(qkv.end(), row, row + floats);
      }
    std::vector<std::span<const std::int32_t>> tables(all_.tables.begin(),
                                                      all_.tables.end());
    const batch_view batch{positions, owners, tables};
    ops_.rope_and_store(qkv.data(), all_.shape.heads, rope_, batch, 1, *pool_);
    auto out = poisoned(positions.size() * width());
    ops_.attention(qkv.data(), how_, batch, 1, *pool_, out.data());
    for (std::size_t r = 0; r < positions.size(); ++r)
      std::copy_n(out.begin() + r * width(), width(),
                  out_.begin() + at(owners[r], positions[r]) * width());
  }

  const std::vector<float>& out() const {
    return out_;
  }
  std::int64_t width() const {
    return all_.shape.heads * all_.shape.head_dim;
  }
  rope_params rope_;
  attention_params how_;

private:
  std::int64_t at(std::int32_t sequence, std::int32_t position) const {
    return std::int64_t{sequence} * all_.length + position;
  }
  backend& ops_;
  const sequences& all_;
  std::unique_ptr<kv_pool> pool_;
  std::vector<float> out_;
};

std::vector<piece> whole(const sequences& all) {
  std::vector<piece> pieces;
  for (std::int32_t s = 0; s < all.count; ++s)
    pieces.push_back({s, 0, all.length});
  return pieces;
}

std::vector<float> at_once(backend& ops, const sequences& all) {
  session s{ops, all};
  s.step(whole(all));
  return s.out();
}

/// Rope in double, rounded to float as the kernel's result is.
std::vector<double> turned(const float* head, std::int32_t dims,
                           std::int32_t position, double theta) {
  std::vector<double> out(head, head + dims);
  for (std::int32_t i = 0; i < dims / 2; ++i) {
    const double angle = position * std::pow(theta, -2.0 * i / dims);
    const double a = head[2 * i], b = head[2 * i + 1];
    out[2 * i] = a * std::cos(angle) - b * std::sin(angle);
    out[2 * i + 1] = a * std::sin(angle) + b * std::cos(angle);
  }
  return out;
}

/// The key or value as the pool keeps it.
double kept(const model_shape& s, double x) {
  const auto value = static_cast<float>(x);
  return s.bf16 ? cpu::rounded_to_bf16(value)
                : cpu::from_f16(cpu::to_f16(value));
}

/// A query's number, or a weight, as it is multiplied.
double multiplied(const model_shape& s, double x) {
  return s.bf16 ? cpu::rounded_to_bf16(static_cast<float>(x)) : x;
}

/// A component that is almost half-way between two numbers of the pool may
/// round the other way than in double. In f16 that is a change of 2^-10 of one
/// of head_dim products, so a score moves by up to 2 * 2 * 2^-10 /
/// sqrt(head_dim); float sums add about 1e-6. bf16 is eight times coarser, and
/// queries and weights are rounded to it, too.
double error_max(const model_shape& s) {
  return s.bf16 ? 1.6e-2 : 2e-3;
}

/// Attention of one head of one row in double over keys and values as they are
/// kept.
std::vector<double> reference(const sequences& all, std::int32_t sequence,
                              std::int32_t position, std::int32_t head,
                              const attention_params& how) {
  const auto& s = all.shape;
  const auto floats = row_floats(s);
  const auto* rows =
      all.qkv.data() + std::int64_t{sequence} * all.length * floats;
  const auto kv = head / (s.heads / s.kv_heads);
  const auto query = turned(rows + position * floats + head * s.head_dim,
                            s.head_dim, position, 10000);
  std::vector<double> weights, out(s.head_dim, 0.0);
  double most = -1e300, total = 0;
  const auto first =
      how.window > 0 ? std::max(0, position + 1 - how.window) : 0;
  const auto last = static_cast<std::int32_t>(std::min<std::int64_t>(
      std::int64_t{position} + how.ahead, all.length - 1));
  for (auto t = first; t <= last; ++t) {
    const auto key = turned(rows + t * floats + (s.heads + kv) * s.head_dim,
                            s.head_dim, t, 10000);
    double score = 0;
    for (std::int32_t d = 0; d < s.head_dim; ++d)
      score += multiplied(s, query[d]) * kept(s, key[d]);
    score *= how.scale;
    if (how.soft_cap > 0)
      score = how.soft_cap * std::tanh(score / how.soft_cap);
    weights.push_back(score);
    most = std::max(most, weights.back());
  }
  for (auto& w : weights)
    total += w = multiplied(s, std::exp(w - most));
  for (auto t = first; t <= last; ++t) {
    const auto* value =
        rows + t * floats + (s.heads + s.kv_heads + kv) * s.head_dim;
    for (std::int32_t d = 0; d < s.head_dim; ++d)
      out[d] += weights[t - first] / total * kept(s, value[d]);
  }
  return out;
}

} // namespace

TEST_CASE("attention over paged keys matches attention in double") {
  random_numbers random{20};
  for (auto& each : backends())
    for (const auto& s : shapes) {
      const sequences all{s, 2, 37, random};
      const auto out = at_once(*each.ops, all);
      double worst = 0;
      for (std::int32_t n = 0; n < 2; ++n)
        for (std::int32_t p = 0; p < all.length; p += 3)
          for (std::int32_t h = 0; h < s.heads; ++h) {
            const auto want = reference(all, n, p, h, params_of(s));
            for (std::int32_t d = 0; d < s.head_dim; ++d) {
              const auto row = std::int64_t{n} * all.length + p;
              const auto got = out[(row * s.heads + h) * s.head_dim + d];
              worst = std::max(worst, std::fabs(got - want[d]));
            }
          }
      INFO(each.name << ", heads " << s.heads << ", dims " << s.head_dim);
      CHECK(worst < error_max(s));
    }
}

TEST_CASE("all instruction sets give the same bits for attention") {
  random_numbers random{21};
  auto all_backends = backends();
  for (const auto& s : shapes) {
    const sequences all{s, 2, 70, random};
    std::vector<float> first;
    for (auto& each : all_backends) {
      const auto out = at_once(*each.ops, all);
      if (first.empty())
        first = out;
      INFO(each.name << ", heads " << s.heads << ", dims " << s.head_dim);
      CHECK(same_bits(first, out));
    }
  }
}

TEST_CASE("extreme keys, values and queries give the same bits everywhere") {
  random_numbers random{29};
  constexpr float extremes[] = {
      0x1p-56f, 0x1.fep-57f, 0x1p-57f, 0x1p-130f, -0x1p-56f, 0.0f,     -0.0f,
      0x1p60f,  -0x1p62f,    3e38f,    -3.4e38f,  INFINITY,  -INFINITY};
  auto all_backends = backends(2);
  for (const auto& s : {shapes[5], shapes[8]})
    for (const int often : {1, 5, 200}) { // of a thousand numbers
      sequences all{s, 2, 90, random};
      for (auto& x : all.qkv)
        if (random.below(1000) < often)
          x = extremes[random.below(std::size(extremes))];
      std::vector<float> first;
      for (auto& each : all_backends) {
        auto out = at_once(*each.ops, all);
        for (auto& x : out) // the bits of a NaN say nothing
          x = std::isnan(x) ? 0.0f : x;
        if (first.empty())
          first = out;
        INFO(each.name << ", dims " << s.head_dim << ", " << often);
        CHECK(same_bits(first, out));
      }
    }
}

TEST_CASE("a weight below 2^-56 is 0 in bf16 on every set") {
  random_numbers random{30};
  const model_shape s{1, 1, 16, 16, true};
  sequences all{s, 1, 2, random};
  // The second row's own key has a score of 36 or 45 more than the first one,
  // whose weight is then 2^-51.9 or 2^-64.9, and a value of 0.
  for (const float score : {36.0f, 45.0f}) {
    std::fill(all.qkv.begin(), all.qkv.end(), 0.0f);
    float* second = all.qkv.data() + row_floats(s);
    second[0] = score * 4; // times the scale, 1 / 4
    second[16] = 1;
    std::fill_n(all.qkv.data() + 32, 16, 1.0f);
    for (auto& each : backends()) {
      session one{*each.ops, all};
      one.rope_.dims = 0;
      one.step(whole(all));
      INFO(each.name << ", " << score);
      CHECK((one.out()[16] > 0) == (score < 40));
    }
  }
}

TEST_CASE("attention is the same whole, in chunks and token by token") {
  random_numbers random{22};
  for (const auto& s : {shapes[0], shapes[3], shapes[5], shapes[8]}) {
    const sequences all{s, 2, 300, random}; // more than one span
    const auto plain = best_backend(1);
    const auto want = at_once(*plain, all);
    for (const int threads : {1, 2, 3}) {
      const auto ops = best_backend(threads);
      session tokens{*ops, all};
      for (std::int32_t p = 0; p < all.length; ++p)
        tokens.step({{0, p, p + 1}, {1, p, p + 1}});
      INFO("threads " << threads << ", heads " << s.heads);
      CHECK(same_bits(tokens.out(), want));
      session chunks{*ops, all};
      chunks.step({{0, 0, 7}});
      chunks.step({{1, 0, 100}, {0, 7, 8}});
      chunks.step({{0, 8, 261}, {1, 100, 258}});
      chunks.step({{1, 258, 300}});
      chunks.step({{0, 261, 300}});
      CHECK(same_bits(chunks.out(), want));
    }
  }
}

TEST_CASE("stale and foreign blocks of the pool do not reach a result") {
  random_numbers random{23};
  for (auto& each : backends())
    for (const auto& s : {shapes[0], shapes[5]}) {
      const sequences all{s, 1, 21, random};
      const auto want = at_once(*each.ops, all);
      auto poison = all;
      for (auto& x : poison.qkv)
        x = std::nanf("");
      // The first step fills the very blocks with NaN, then they are used anew.
      auto shape = all.pool_shape();
      const auto pool = each.ops->make_kv_pool(shape).value();
      std::vector<std::int32_t> positions, owners(21, 0);
      for (std::int32_t p = 0; p < 32; ++p)
        positions.push_back(p);
      std::vector<std::int32_t> owners_full(32, 0);
      std::vector<std::span<const std::int32_t>> tables(all.tables.begin(),
                                                        all.tables.end());
      auto stale = poisoned(32 * row_floats(all.shape));
      rope_params rope;
      rope.dims = all.shape.head_dim;
      each.ops->rope_and_store(stale.data(), 9, rope,
                               {positions, owners_full, tables}, 1, *pool);
      positions.resize(21);
      auto qkv = all.qkv;
      const batch_view batch{positions, owners, tables};
      each.ops->rope_and_store(qkv.data(), 9, rope, batch, 1, *pool);
      auto out = poisoned(21 * 9 * 64);
      each.ops->attention(qkv.data(), params_of(all.shape), batch, 1, *pool,
                          out.data());
      INFO(each.name);
      CHECK(same_bits(out, want));
    }
}

TEST_CASE("attention over a long context matches double in every span") {
  random_numbers random{24};
  for (const bool bf16 : {false, true}) {
    const model_shape s{2, 1, 32, 16, bf16};
    const sequences all{s, 1, 1100, random};
    const auto one = best_backend(1), two = best_backend(2);
    session whole_run{*one, all};
    whole_run.step({{0, 0, 1100}});
    session split_run{*two, all};
    split_run.step({{0, 0, 1099}});
    split_run.step({{0, 1099, 1100}});
    CHECK(same_bits(whole_run.out(), split_run.out()));
    double worst = 0;
    for (const std::int32_t p : {255, 256, 511, 512, 1099})
      for (std::int32_t h = 0; h < 2; ++h) {
        const auto want = reference(all, 0, p, h, params_of(all.shape));
        for (std::int32_t d = 0; d < 32; ++d)
          worst =
              std::max(worst, std::fabs(whole_run.out()[(p * 2 + h) * 32 + d] -
                                        want[d]));
      }
    CHECK(worst < error_max(s));
  }
}

TEST_CASE("a window and a soft cap match double, in any chunks") {
  random_numbers random{25};
  for (const bool bf16 : {false, true}) {
    const model_shape s{6, 2, 32, 16, bf16};
    const sequences all{s, 2, 600, random}; // three spans
    for (const std::int32_t window : {1, 3, 16, 100, 256, 300, 599, 10000})
      for (const float soft_cap : {0.0f, 1.5f}) {
        auto how = params_of(s);
        how.window = window;
        how.soft_cap = soft_cap;
        std::vector<float> first;
        for (auto& each : backends(2)) {
          session chunks{*each.ops, all};
          chunks.how_ = how;
          chunks.step({{0, 0, 250}, {1, 0, 9}});
          chunks.step({{0, 250, 251}, {1, 9, 10}});
          chunks.step({{1, 10, 600}, {0, 251, 263}});
          for (std::int32_t p = 263; p < 285; ++p)
            chunks.step({{0, p, p + 1}});
          chunks.step({{0, 285, 600}});
          if (first.empty())
            first = chunks.out();
          INFO(each.name << ", window " << window << ", cap " << soft_cap);
          CHECK(same_bits(first, chunks.out()));
        }
        const auto plain = plain_backend();
        session whole_run{*plain, all};
        whole_run.how_ = how;
        whole_run.step(whole(all));
        CHECK(same_bits(first, whole_run.out()));
        double worst = 0;
        for (const std::int32_t p : {0, 2, 15, 99, 255, 256, 270, 511, 599})
          for (std::int32_t h = 0; h < s.heads; ++h) {
            const auto want = reference(all, 1, p, h, how);
            for (std::int32_t d = 0; d < 32; ++d)
              worst = std::max(
                  worst, std::fabs(first[((600 + p) * s.heads + h) * 32 + d] -
                                   want[d]));
          }
        INFO("window " << window << ", cap " << soft_cap << ", bf16 " << bf16);
        CHECK(worst < error_max(s));
      }
  }
}

TEST_CASE("rows that see what comes after them match double") {
  random_numbers random{28};
  for (const bool bf16 : {false, true})
    for (const std::int32_t length : {1, 7, 300, 600}) {
      const model_shape s{6, 2, 32, 16, bf16};
      const sequences all{s, 2, length, random};
      for (const auto& [window, ahead] :
           {std::pair{0, all_ahead}, {3, 2}, {65, 64}, {300, 299}, {1, 20}}) {
        std::vector<float> first;
        for (auto& each : backends(2)) {
          session together{*each.ops, all};
          together.how_.window = window;
          together.how_.ahead = ahead;
          together.step(whole(all));
          session alone{*each.ops, all};
          alone.how_ = together.how_;
          alone.step({{1, 0, length}});
          alone.step({{0, 0, length}});
          if (first.empty())
            first = together.out();
          INFO(each.name << ", window " << window << ", ahead " << ahead
                         << ", length " << length);
          CHECK(same_bits(first, together.out()));
          CHECK(same_bits(first, alone.out()));
        }
        auto how = params_of(s);
        how.window = window;
        how.ahead = ahead;
        double worst = 0;
        for (const std::int32_t p : {0, 1, 6, 190, 255, 256, 299, 599}) {
          if (p >= length)
            continue;
          for (std::int32_t h = 0; h < s.heads; ++h) {
            const auto want = reference(all, 1, p, h, how);
            for (std::int32_t d = 0; d < 32; ++d) {
              const auto at = ((length + p) * s.heads + h) * 32 + d;
              worst = std::max(worst, std::fabs(first[at] - want[d]));
            }
          }
        }
        INFO("window " << window << ", ahead " << ahead << ", length " << length
                       << ", bf16 " << bf16);
        CHECK(worst < error_max(s));
      }
    }
}

TEST_CASE("a window of all positions gives the bits of none") {
  random_numbers random{26};
  for (const auto& s : {shapes[0], shapes[5]}) {
    const sequences all{s, 1, 300, random};
    const auto ops = best_backend(2);
    session wide{*ops, all};
    wide.how_.window = 300;
    wide.step(whole(all));
    CHECK(same_bits(wide.out(), at_once(*ops, all)));
  }
}

TEST_CASE("what lies before a window is not read") {
  random_numbers random{27};
  for (auto& each : backends())
    for (const bool bf16 : {false, true}) {
      const sequences all{{4, 2, 32, 16, bf16}, 1, 40, random};
      session clean{*each.ops, all};
      auto spoilt_input = all;
      for (std::int64_t i = 0; i < 16 * row_floats(all.shape); ++i)
        spoilt_input.qkv[i] = std::nanf("");
      session spoilt{*each.ops, spoilt_input};
      for (auto* one : {&clean, &spoilt}) {
        one->how_.window = 10;
        one->step({{0, 0, 25}});
        one->step({{0, 25, 40}});
      }
      const auto from = 25 * clean.width();
      const std::vector<float> want(clean.out().begin() + from,
                                    clean.out().end());
      const std::vector<float> got(spoilt.out().begin() + from,
                                   spoilt.out().end());
      INFO(each.name);
      CHECK(std::none_of(got.begin(), got.end(),
                         [](float x) { return std::isnan(x); }));
      CHECK(same_bits(want, got));
    }
}

TEST_CASE("a pool of an unfit shape is refused") {
  const auto ops = best_backend(1);
  CHECK_FALSE(ops->make_kv_pool({1, 1, 24, 16, 1}).has_value());
  CHECK_FALSE(ops->make_kv_pool({1, 1, 64, 8, 1}).has_value());
  CHECK_FALSE(ops->make_kv_pool({0, 1, 64, 16, 1}).has_value());
  CHECK_FALSE(ops->make_kv_pool({1, 1, 64, 16, -1}).has_value());
  constexpr auto huge = std::int32_t{1} << 30;
  CHECK_FALSE(ops->make_kv_pool({huge, huge, huge, 16, huge}).has_value());
  const auto pool = ops->make_kv_pool({2, 3, 64, 16, 4}).value();
  CHECK(pool->bytes() == 2 * 3 * 64 * 16 * 4 * 2 * 2);
}
