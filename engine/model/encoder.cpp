#include "engine/model/encoder.hpp"

#include "engine/model/layers.hpp"
#include "engine/sampling/fixed_math.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <string>
#include <vector>

namespace troupe::model {

namespace {

/// Positions per block of the pool that a step's keys and values go through.
constexpr std::int32_t block_tokens = 16;

/// What is added to the mean of squares of a vector that gets the length 1, so
/// that one of zeros stays what it is.
constexpr float tiny = 1e-30f;

/// 1 / (1 + e^-x).
float sigmoid(float x) {
  if (std::isnan(x))
    return x;
  const double small = sampling::fixed_exp(-std::abs(double{x}));
  return static_cast<float>((x < 0 ? small : 1) / (1 + small));
}

/// The head of scores.
struct head_weights {
  std::unique_ptr<ops::weight> first;
  std::unique_ptr<ops::buffer> first_bias; ///< null: none
  std::unique_ptr<ops::weight> last;
  std::unique_ptr<ops::buffer> last_bias;
};

/// A layer norm's weights.
struct norm_weights {
  std::unique_ptr<ops::buffer> weight; ///< null: there is no such norm
  std::unique_ptr<ops::buffer> bias;
};

/// The sequences of a step as rows, one after the other.
struct step_rows {
  std::vector<std::int32_t> tokens, types, positions, sequences;
  std::vector<std::int32_t> firsts, lasts; ///< rows, per sequence
  std::vector<std::int32_t> ends;          ///< one after the last row
  std::vector<std::vector<std::int32_t>> tables;
  std::vector<std::span<const std::int32_t>> table_views;

  void fill(std::span<const engine::whole_sequence> all) {
    for (auto* list :
         {&tokens, &types, &positions, &sequences, &firsts, &lasts, &ends})
      list->clear();
    table_views.clear();
    if (tables.size() < all.size())
      tables.resize(all.size());
    std::int32_t next_block = 0;
    for (const auto& one : all)
      add(one, next_block);
  }

  void add(const engine::whole_sequence& one, std::int32_t& next_block) {
    const auto index = static_cast<std::int32_t>(ends.size());
    const auto size = static_cast<std::int32_t>(one.tokens.size());
    firsts.push_back(static_cast<std::int32_t>(tokens.size()));
    for (std::int32_t p = 0; p < size; ++p) {
      tokens.push_back(one.tokens[p]);
      positions.push_back(p);
      sequences.push_back(index);
      const bool second =
          one.second_text > 0 && p >= std::int64_t{one.second_text};
      types.push_back(second ? 1 : 0);
    }
    ends.push_back(static_cast<std::int32_t>(tokens.size()));
    lasts.push_back(ends.back() - 1);
    auto& table = tables[index];
    table.clear();
    for (std::int32_t p = 0; p < size; p += block_tokens)
      table.push_back(next_block++);
    table_views.push_back(table);
  }

  ops::batch_view view() const {
    return {positions, sequences, table_views};
  }
};

} // namespace

struct encoder::state {
  state(const model_config& config_in, ops::backend& backend_in,
        const encoder_limits& limits_in)
      : config(config_in), backend(backend_in), limits(limits_in),
        blocks(config, backend) {
    // nop
  }

  // -- loading ----------------------------------------------------------------

  result<void> load(weight_loader& source) {
    if (auto done = weight(source, config.family->embedding, embedding); !done)
      return done;
    if (config.family->learned_positions) {
      auto done = weight(source, "position_embd.weight", positions);
      if (done)
        done = weight(source, "token_types.weight", types);
      if (!done)
        return done;
    }
    if (config.family->encoder)
      embedding_norm = norm(source, "token_embd_norm");
    if (auto done = blocks.load(source); !done)
      return done;
    if (!config.family->output_norm.empty())
      output_norm = norm(source, "output_norm");
    if (auto done = load_head(source); !done)
      return done;
    weight_bytes = source.resident_bytes();
    return {};
  }

  static result<void> weight(weight_loader& source, std::string_view name,
                             std::unique_ptr<ops::weight>& out) {
    auto loaded = source.weight({{std::string{name}}});
    if (!loaded)
      return loaded.error();
    out = std::move(*loaded);
    return {};
  }

  norm_weights norm(weight_loader& source, const std::string& name) {
    norm_weights out;
    out.weight = source.floats({{name + ".weight"}});
    out.bias = config.family->biased_norms ? source.floats({{name + ".bias"}})
                                           : source.zeros(width());
    return out;
  }

  result<void> load_head(weight_loader& source) {
    if (!config.pooling.has_head)
      return {};
    if (auto done = weight(source, "cls.weight", head.first); !done)
      return done;
    if (config.pooling.biased_head)
      head.first_bias = source.floats({{"cls.bias"}});
    if (config.family->gelu_head)
      head_norm = norm(source, "cls.norm");
    if (auto done = weight(source, "cls.output.weight", head.last); !done)
      return done;
    head.last_bias = source.floats({{"cls.output.bias"}});
    return {};
  }

  /// Every sequence begins a block.
  std::int32_t blocks_max() const {
    const auto most = std::int64_t{limits.rows_max} +
                      std::int64_t{limits.sequences_max} * (block_tokens - 1);
    return static_cast<std::int32_t>(most / block_tokens);
  }

  ops::kv_shape kv() const {
    return {1,
            config.kv_heads,
            config.head_dim,
            block_tokens,
            blocks_max(),
            config.bf16_attention};
  }

  result<void> allocate() {
    // First, since it may try products in memory that is free until then.
    auto prepared = backend.prepare(bounds());
    if (!prepared)
      return prepared.error();
    step_bytes = *prepared;
    auto made = backend.make_kv_pool(kv());
    if (!made)
      return made.error();
    pool = std::move(*made);
    blocks.allocate(limits.rows_max);
    pooled = backend.allocate(limits.sequences_max * config.embedding);
    other = backend.allocate(limits.sequences_max * config.embedding);
    scores = backend.allocate(limits.sequences_max);
    // A norm by these weights divides by the vector's length.
    unit = backend.upload(std::vector<float>(
        width(), 1 / std::sqrt(static_cast<float>(config.embedding))));
    return {};
  }

  ops::step_bounds bounds() const {
    ops::step_bounds out;
    out.rows = limits.rows_max;
    out.sequences = limits.sequences_max;
    out.table_entries = blocks_max();
    out.kv = kv();
    out.positions = std::min(limits.rows_max, config.context_length);
    out.ropes = config.ropes();
    out.mixture = config.mixture();
    return out;
  }

  std::uint64_t workspace_bytes() const {
    const auto floats = blocks.floats() + pooled->size() + other->size() +
                        scores->size() + unit->size();
    return static_cast<std::uint64_t>(floats) * sizeof(float) +
           static_cast<std::uint64_t>(pool->bytes()) + step_bytes;
  }

  // -- running ----------------------------------------------------------------

  std::span<const float> run(std::span<const engine::whole_sequence> all) {
    rows.fill(all);
    check_rows();
    embed();
    blocks.run(rows.view(), row_count(), *pool);
    if (output_norm.weight)
      norm_rows(output_norm, blocks.at(slot::residual), row_count());
    pool_rows();
    if (config.pooling.has_head)
      score();
    else
      finish_embeddings();
    return results;
  }

  void check_rows() const {
    assert(!rows.tokens.empty() && row_count() <= limits.rows_max);
    assert(sequence_count() <= limits.sequences_max);
    for (std::size_t i = 0; i < rows.tokens.size(); ++i) {
      assert(rows.tokens[i] >= 0 && rows.tokens[i] < config.vocabulary);
      assert(rows.positions[i] < config.context_length);
    }
  }

  void embed() {
    auto* residual = blocks.at(slot::residual);
    backend.embed(*embedding, rows.tokens, residual);
    if (positions) {
      // RoBERTa has one type.
      for (auto& type : rows.types)
        type = std::min(type, config.types - 1);
      add_embeddings(*types, rows.types);
      add_embeddings(*positions, rows.positions);
    }
    if (config.embedding_scale != 1)
      backend.scale(residual, config.embedding_scale, row_count(),
                    config.embedding);
    if (embedding_norm.weight)
      norm_rows(embedding_norm, residual, row_count());
  }

  void add_embeddings(const ops::weight& table,
                      std::span<const std::int32_t> ids) {
    backend.embed(table, ids, blocks.at(slot::branch));
    backend.add_scaled(blocks.at(slot::branch), 1, row_count(),
                       config.embedding, blocks.at(slot::residual));
  }

  void norm_rows(norm_weights& by, float* x, std::int64_t count) {
    if (!config.family->encoder)
      return backend.rms_norm(x, *by.weight, config.norm_epsilon, count,
                              config.embedding, x);
    backend.layer_norm(x, *by.weight, *by.bias, config.norm_epsilon, count,
                       config.embedding, x);
  }

  void pool_rows() {
    const auto* from = blocks.at(slot::residual);
    switch (config.pooling.of) {
    case pooling::rows::mean:
      return backend.mean_rows(from, rows.ends, config.embedding,
                               pooled->data());
    case pooling::rows::first:
      return backend.gather_rows(from, rows.firsts, config.embedding,
                                 pooled->data());
    case pooling::rows::last:
      return backend.gather_rows(from, rows.lasts, config.embedding,
                                 pooled->data());
    }
  }

  void finish_embeddings() {
    results.resize(sequence_count() * width());
    auto* from = pooled->data();
    if (config.pooling.normalised) {
      from = other->data();
      backend.rms_norm(pooled->data(), *unit, tiny, sequence_count(),
                       config.embedding, from);
    }
    backend.download(from, results);
  }

  void score() {
    const auto count = sequence_count();
    auto* hidden = other->data();
    blocks.multiply(*head.first, pooled->data(), {count, count}, {}, hidden);
    if (head.first_bias)
      backend.add_bias(hidden, *head.first_bias, count, config.embedding);
    if (config.family->gelu_head) {
      backend.erf_gelu(hidden, count, config.embedding);
      norm_rows(head_norm, hidden, count);
    } else {
      backend.soft_cap(hidden, 1, count, config.embedding); // tanh
    }
    blocks.multiply(*head.last, hidden, {count, count}, {}, scores->data());
    backend.add_bias(scores->data(), *head.last_bias, count, 1);
    results.resize(count);
    backend.download(scores->data(), results);
    if (config.pooling.sigmoid)
      for (auto& one : results)
        one = sigmoid(one);
  }

  std::int64_t row_count() const {
    return static_cast<std::int64_t>(rows.tokens.size());
  }

  std::int64_t sequence_count() const {
    return static_cast<std::int64_t>(rows.ends.size());
  }

  std::size_t width() const {
    return static_cast<std::size_t>(config.embedding);
  }

  const model_config config;
  ops::backend& backend;
  const encoder_limits limits;
  std::unique_ptr<ops::weight> embedding;
  std::unique_ptr<ops::weight> positions; ///< null: rope has them
  std::unique_ptr<ops::weight> types;
  norm_weights embedding_norm;
  layers blocks;
  norm_weights output_norm;
  head_weights head; ///< of a model that scores
  norm_weights head_norm;
  std::unique_ptr<ops::kv_pool> pool; ///< one layer's, used by all in turn
  std::unique_ptr<ops::buffer> pooled;
  std::unique_ptr<ops::buffer> other;
  std::unique_ptr<ops::buffer> scores;
  std::unique_ptr<ops::buffer> unit;
  std::vector<float> results;
  std::uint64_t weight_bytes = 0;
  std::uint64_t step_bytes = 0; ///< of the backend, for its steps
  step_rows rows;               ///< of the step under way
};

encoder::encoder() = default;

encoder::~encoder() = default;

result<std::unique_ptr<encoder>> encoder::make(const weights::checkpoint& file,
                                               const model_config& config,
                                               ops::backend& backend,
                                               const encoder_limits& limits,
                                               const load_progress& progress) {
  if (limits.rows_max < 1 || limits.sequences_max < 1)
    return error{errc::invalid_argument, "an encoder's limits start at 1"};
  std::unique_ptr<encoder> out{new encoder};
  out->state_ = std::make_unique<state>(config, backend, limits);
  weight_loader source{file, backend, reading::elements, progress};
  if (auto done = out->state_->load(source); !done)
    return done.error();
  if (file.changed())
    return error{errc::io, file.name() + ": changed while it was loaded"};
  if (auto done = out->state_->allocate(); !done)
    return done.error();
  return out;
}

result<encoder_bytes> encoder_size(const weights::checkpoint& file,
                                   const model_config& config,
                                   ops::backend& backend,
                                   const encoder_limits& limits) {
  encoder::state sized{config, backend, limits};
  weight_loader source{file, backend, reading::shapes, {}};
  if (auto done = sized.load(source); !done)
    return done.error();
  if (auto done = sized.allocate(); !done)
    return done.error();
  return encoder_bytes{sized.weight_bytes, sized.workspace_bytes()};
}

std::span<const float>
encoder::run(std::span<const engine::whole_sequence> sequences) {
  return state_->run(sequences);
}

std::int32_t encoder::vocabulary() const {
  return state_->config.vocabulary;
}

std::int32_t encoder::size() const {
  return static_cast<std::int32_t>(state_->config.pooling.output.size);
}

std::uint64_t encoder::weight_bytes_read() const {
  return state_->blocks.weight_bytes_read();
}

std::uint64_t encoder::weight_bytes() const {
  return state_->weight_bytes;
}

} // namespace troupe::model
