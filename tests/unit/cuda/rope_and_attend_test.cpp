#include "tests/unit/cuda/random_floats.hpp"
#include "tests/unit/cuda/tested_device.hpp"
#include "tests/unit/model/naive_backend.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace troupe;
using namespace troupe::test;

// What a device does with the heads of q, k and v in one launch has the bits of
// launches one after the other.

namespace {

struct shape {
  std::int32_t heads, kv_heads, head_dim, block_tokens;
};

/// So many positions of sequences, of which a step has the last one each. Two
/// more rows are as those that pad a step: alike, with one block.
class last_rows {
public:
  last_rows(const shape& of, std::vector<std::int32_t> lengths)
      : of_(of), lengths_(std::move(lengths)) {
    for (auto length : lengths_) {
      auto& table = tables_.emplace_back();
      for (std::int32_t p = 0; p < length; p += of.block_tokens)
        table.insert(table.begin(), blocks_++);
    }
    for (int i = 0; i < 2; ++i) {
      tables_.push_back({blocks_});
      lengths_.push_back(1);
    }
    ++blocks_;
    for (std::size_t s = 0; s < lengths_.size(); ++s) {
      const auto own = random_floats(lengths_[s] * stride(),
                                     7 + std::min(s, lengths_.size() - 2));
      values_.insert(values_.end(), own.begin(), own.end());
      begins_.push_back(static_cast<std::int32_t>(values_.size() / stride()));
    }
    values_.back() = 1e30f; // of v
    values_[values_.size() - 1 - stride()] = 1e30f;
  }

  /// What the rows get, and then what they see of the store.
  std::vector<float> run(ops::backend& by, const ops::rope_params& rope,
                         const ops::attention_params& how, bool is_joined) {
    auto pool = by.make_kv_pool({2, of_.kv_heads, of_.head_dim,
                                 of_.block_tokens, blocks_})
                    .value();
    const auto all = by.upload(values_);
    const step before{*this, all_but_last};
    by.rope_and_store(all->data(), of_.heads, rope, before.view(), 1, *pool);
    const step now{*this, last};
    const auto rows = static_cast<std::int64_t>(lengths_.size());
    const auto fresh = by.upload(values_);
    auto qkv = by.allocate(rows * stride());
    by.gather_rows(fresh->data(), now.places, stride(), qkv->data());
    auto out = by.allocate(2 * rows * of_.heads * of_.head_dim);
    auto* second = out->data() + rows * of_.heads * of_.head_dim;
    if (is_joined) {
      by.rope_and_attend(qkv->data(), {}, rope, how, now.view(), 1, *pool,
                         out->data());
    } else {
      by.rope_and_store(qkv->data(), of_.heads, rope, now.view(), 1, *pool);
      by.attention(qkv->data(), how, now.view(), 1, *pool, out->data());
    }
    by.gather_rows(fresh->data(), now.places, stride(), qkv->data());
    by.attention(qkv->data(), how, now.view(), 1, *pool, second);
    return downloaded(by, *out);
  }

  /// What the last rows get after norms of their heads, but for those that pad
  /// a step: in a step by themselves, or behind the rows before them.
  std::vector<float> run_normed(ops::backend& by, const ops::rope_params& rope,
                                const ops::attention_params& how,
                                bool is_in_company) {
    auto pool = by.make_kv_pool({2, of_.kv_heads, of_.head_dim,
                                 of_.block_tokens, blocks_})
                    .value();
    const auto q = by.upload(random_floats(of_.head_dim, 3));
    const auto k = by.upload(random_floats(of_.head_dim, 4));
    const ops::head_norms norms{q.get(), k.get(), 1e-3f};
    const auto all = by.upload(values_);
    const std::int64_t width = of_.heads * of_.head_dim;
    std::vector<float> got;
    const auto attend = [&](const step& rows) {
      const auto count = static_cast<std::int64_t>(rows.places.size());
      auto qkv = by.allocate(count * stride());
      by.gather_rows(all->data(), rows.places, stride(), qkv->data());
      auto out = by.allocate(count * width);
      by.rope_and_attend(qkv->data(), norms, rope, how, rows.view(), 1, *pool,
                         out->data());
      got = downloaded(by, *out);
    };
    attend({*this, all_but_last});
    const step now{*this, is_in_company ? last_two : last};
    attend(now);
    std::vector<float> out;
    for (std::size_t r = 0; r < now.places.size(); ++r) {
      const auto s = static_cast<std::size_t>(now.sequences[r]);
      if (now.positions[r] + 1 == lengths_[s] && s + 2 < lengths_.size())
        out.insert(out.end(),
                   got.begin() + static_cast<std::int64_t>(r) * width,
                   got.begin() + static_cast<std::int64_t>(r + 1) * width);
    }
    return out;
  }

private:
  /// From so many before a sequence's end to so many before it.
  struct which {
    std::int32_t from, to;
  };
  static constexpr which all_but_last{1'000'000, 1}, last{1, 0}, last_two{2, 0};

  struct step {
    step(const last_rows& of, const which& rows) {
      for (std::size_t s = 0; s < of.lengths_.size(); ++s) {
        const auto length = of.lengths_[s];
        for (auto p = std::max(length - rows.from, 0); p < length - rows.to;
             ++p) {
          positions.push_back(p);
          sequences.push_back(static_cast<std::int32_t>(s));
          places.push_back(of.begins_[s] - length + p);
        }
        tables.push_back(of.tables_[s]);
      }
    }
    ops::batch_view view() const {
      return {positions, sequences, tables};
    }
    std::vector<std::int32_t> positions, sequences, places;
    std::vector<std::span<const std::int32_t>> tables;
  };

  std::int64_t stride() const {
    return std::int64_t{of_.heads + 2 * of_.kv_heads} * of_.head_dim;
  }

  shape of_;
  std::vector<std::int32_t> lengths_;
  std::vector<float> values_;
  std::vector<std::int32_t> begins_; ///< behind each sequence's rows
  std::vector<std::vector<std::int32_t>> tables_;
  std::int32_t blocks_ = 0;
};

/// To the bit.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// The first, the first of a block, a span and a part, the last of a block.
std::vector<std::int32_t> lengths_for(const shape& of) {
  if (of.head_dim > 40)
    return {1, of.block_tokens + 1, 65};
  return {1, of.block_tokens + 1, 2 * of.block_tokens, 65, 257};
}

std::vector<ops::rope_params> ropes_for(std::int32_t head_dim) {
  ops::rope_params none, whole, partial;
  none.dims = 0;
  whole.dims = head_dim / 2 * 2;
  whole.interleaved = false;
  partial.dims = head_dim / 4 * 2;
  partial.scale = 1.25f;
  return {none, whole, partial};
}

} // namespace

TEST_CASE("rows that are alone are turned, stored and attended to at once") {
  const auto kv = GENERATE(ops::kv_type::f16, ops::kv_type::e4m3);
  // Of parts, the block that ends last is another.
  const auto [blocks_wanted, runs_backwards] =
      GENERATE(std::pair<std::int64_t, bool>{0, false},
               std::pair{1'000'000, false}, std::pair{1'000'000, true});
  if (on_gpu() && blocks_wanted > 0)
    return; // it divides few rows by itself
  cuda::emulated_usage usage;
  const auto gpu = make_gpu({.blocks_wanted = blocks_wanted,
                             .usage = &usage,
                             .runs_backwards = runs_backwards},
                            kv);
  for (const auto& of :
       {shape{2, 2, 32, 16}, shape{14, 2, 16, 16}, shape{17, 1, 24, 16},
        shape{3, 1, 11, 5}, shape{7, 1, 128, 16}, shape{2, 1, 200, 16},
        shape{2, 2, 500, 16}})
    for (const auto& rope : ropes_for(of.head_dim))
      for (const std::int32_t window : {0, 20}) {
        INFO("heads " << of.heads << " / " << of.kv_heads << " of "
                      << of.head_dim << ", " << rope.dims << " turned, window "
                      << window);
        last_rows rows{of, lengths_for(of)};
        const ops::attention_params how{of.heads, 0.3f, 0, window, 0};
        const auto apart = rows.run(*gpu, rope, how, false);
        const auto before = usage.launches;
        REQUIRE(same(rows.run(*gpu, rope, how, true), apart));
        if (!on_gpu()) // those before it, two gathers, it, and what follows
          CHECK(usage.launches - before == 5);
      }
}

TEST_CASE("heads are normed where they are turned, the same in any company") {
  const auto kv = GENERATE(ops::kv_type::f16, ops::kv_type::e4m3);
  cuda::emulated_usage usage;
  const auto gpu = make_gpu({.blocks_wanted = 1'000'000, .usage = &usage}, kv);
  const auto naive = make_naive_backend();
  for (const auto& of : {shape{14, 2, 16, 16}, shape{3, 1, 11, 5},
                         shape{7, 1, 128, 16}, shape{2, 1, 200, 16}})
    for (const auto& rope : ropes_for(of.head_dim)) {
      INFO("heads " << of.heads << " / " << of.kv_heads << " of " << of.head_dim
                    << ", " << rope.dims << " turned");
      last_rows rows{of, lengths_for(of)};
      const ops::attention_params how{of.heads, 0.1f, 0, 0, 0};
      const auto before = usage.launches;
      const auto alone = rows.run_normed(*gpu, rope, how, false);
      if (!on_gpu()) // rope, rows alone and others; rows alone; two gathers
        CHECK(usage.launches - before <= 3 + 1 + 2);
      REQUIRE(same(rows.run_normed(*gpu, rope, how, true), alone));
      if (kv != ops::kv_type::f16)
        continue;
      const auto expected = rows.run_normed(*naive, rope, how, true);
      REQUIRE(alone.size() == expected.size());
      for (std::size_t i = 0; i < alone.size(); ++i)
        REQUIRE(std::abs(alone[i] - expected[i]) < 1e-2);
    }
}
