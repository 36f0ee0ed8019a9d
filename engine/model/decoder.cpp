#include "engine/model/decoder.hpp"

#include "engine/model/layers.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace troupe::model {

namespace {

ops::kv_shape kv_shape_of(const model_config& config, std::int32_t block_tokens,
                          std::int32_t blocks) {
  return {config.layers, config.kv_heads, config.head_dim,
          block_tokens,  blocks,          config.bf16_attention};
}

ops::step_bounds bounds_of(const model_config& config,
                           const decoder_limits& limits) {
  ops::step_bounds out;
  out.rows = std::max(limits.rows_max, limits.logit_rows_max);
  // Each may be in a step once per role (step_plan::prompt_rows).
  const auto sequences = 2 * std::int64_t{limits.sequences_max};
  out.sequences = sequences > 0
                      ? std::min<std::int64_t>(sequences, limits.rows_max)
                      : limits.rows_max;
  const auto room = std::int64_t{limits.kv_blocks} * limits.kv_block_tokens;
  const auto positions =
      limits.positions_max > 0
          ? std::min<std::int64_t>(limits.positions_max, room)
          : room;
  out.positions = static_cast<std::int32_t>(positions);
  // Sequences may share blocks.
  const auto blocks =
      (positions + limits.kv_block_tokens - 1) / limits.kv_block_tokens;
  out.table_entries = out.sequences * blocks;
  out.ropes = config.ropes();
  out.kv = kv_shape_of(config, limits.kv_block_tokens, limits.kv_blocks);
  out.mixture = config.mixture();
  return out;
}

shard rank_of(const ops::communicator* ranks) {
  return ranks == nullptr ? shard{} : shard{ranks->rank(), ranks->size()};
}

} // namespace

struct decoder::state {
  /// `config_in` is the model as this rank sees it.
  state(const model_config& config_in, ops::backend& backend_in,
        const decoder_limits& limits_in, ops::communicator* ranks_in)
      : config(config_in), backend(backend_in), limits(limits_in),
        ranks(ranks_in), blocks(config, backend, ranks),
        keeps_steps(backend.keeps_steps()), spare_table{limits.kv_blocks} {
    // nop
  }

  result<void> load(weight_loader& source) {
    const auto& family = *config.family;
    auto table = source.weight({{std::string{family.embedding}}});
    if (!table)
      return table.error();
    embedding = std::move(*table);
    if (auto done = blocks.load(source); !done)
      return done;
    output_norm = source.floats({{std::string{family.output_norm}}});
    // A rank's part of the vocabulary is a matrix of its own in any case.
    if (!config.tied_embeddings || ranks != nullptr) {
      const auto name =
          config.tied_embeddings ? family.embedding : family.output;
      auto loaded = source.weight(
          {{std::string{name},
            {cut::outputs, {{config.vocabulary, rank_of(ranks).size}}}}});
      if (!loaded)
        return loaded.error();
      output = std::move(*loaded);
    }
    weight_bytes = source.resident_bytes();
    return {};
  }

  result<void> allocate() {
    // First, since it may try products in memory that is free until then.
    auto bounds = bounds_of(config, limits);
    // All ranks have the same logits, and draw the same.
    bounds.drawn_rows = limits.logit_rows_max;
    bounds.logits = config.vocabulary;
    drawer = backend.drawer_of(config.vocabulary);
    auto prepared = backend.prepare(bounds);
    if (!prepared)
      return prepared.error();
    step_bytes = *prepared + make_room_for_ranks();
    auto made = backend.make_kv_pool(
        kv_shape_of(config, limits.kv_block_tokens,
                    limits.kv_blocks + (keeps_steps ? 1 : 0)));
    if (!made)
      return made.error();
    pool = std::move(*made);
    blocks.allocate(limits.rows_max);
    auto chosen = std::int64_t{limits.logit_rows_max};
    gathered = backend.allocate(chosen * config.embedding);
    gathered_normed = backend.allocate(chosen * config.embedding);
    logits = backend.allocate(chosen * config.vocabulary);
    if (ranks != nullptr)
      part_of_logits = backend.allocate(chosen * output->rows());
    return {};
  }

  /// For the sums of layers and the parts of logits.
  std::uint64_t make_room_for_ranks() {
    if (ranks == nullptr)
      return 0;
    return ranks->prepare(
        std::max(std::int64_t{limits.rows_max} * config.embedding,
                 std::int64_t{limits.logit_rows_max} * output->rows()));
  }

  void allocate_host() {
    host_logits.resize(static_cast<std::size_t>(logits->size()));
  }

  std::uint64_t workspace_bytes() const {
    const auto floats = blocks.floats() + gathered->size() +
                        gathered_normed->size() + logits->size() +
                        (part_of_logits ? part_of_logits->size() : 0);
    return static_cast<std::uint64_t>(floats) * sizeof(float) + step_bytes +
           spare_bytes();
  }

  /// Of the block behind those that may be in tables.
  std::uint64_t spare_bytes() const {
    const auto blocks = limits.kv_blocks + 1;
    return keeps_steps ? static_cast<std::uint64_t>(pool->bytes() / blocks) : 0;
  }

  std::uint64_t kv_bytes() const {
    return static_cast<std::uint64_t>(pool->bytes()) - spare_bytes();
  }

  std::uint64_t host_bytes() const {
    return static_cast<std::uint64_t>(logits->size()) * sizeof(float);
  }

  std::int64_t rows() const {
    return static_cast<std::int64_t>(plan.tokens.size());
  }

  void check_plan() const {
    assert(rows() <= limits.rows_max);
    assert(plan.positions.size() == plan.tokens.size());
    assert(plan.sequences.size() == plan.tokens.size());
    assert(plan.logit_rows.size() <=
           static_cast<std::size_t>(limits.logit_rows_max));
    for (std::size_t row = 0; row < plan.tokens.size(); ++row) {
      assert(plan.tokens[row] >= -rows_drawn);
      assert(plan.tokens[row] < config.vocabulary);
      auto sequence = static_cast<std::size_t>(plan.sequences[row]);
      assert(sequence < plan.tables.size());
      [[maybe_unused]] const auto& table = plan.tables[sequence];
      assert(plan.positions[row] >= 0);
      assert(static_cast<std::size_t>(plan.positions[row] /
                                      limits.kv_block_tokens) < table.size());
    }
    assert(plan.prompt_rows >= 0 && plan.prompt_rows <= rows());
    for ([[maybe_unused]] auto row : plan.logit_rows)
      assert(row >= 0 && row < rows());
    for (const auto& table : plan.tables)
      for ([[maybe_unused]] auto block : table)
        assert(block >= 0 && block < limits.kv_blocks);
  }

  void take(const engine::step_plan& next) {
    plan = next;
    wanted = plan.logit_rows.size();
    check_plan();
  }

  /// Starts what was taken.
  void run() {
    tables.assign(plan.tables.begin(), plan.tables.end());
    ops::step_input in;
    const bool same = makes_same_calls();
    in.repeats = same && (!backend.has_roles() || plan.prompt_rows == 0);
    if (in.repeats || (same && ranks != nullptr))
      pad(); // ranks add up as many rows, whoever has roles
    in.ids = plan.tokens;
    in.batch = {plan.positions, plan.sequences, tables};
    in.logit_rows = plan.logit_rows;
    const auto before = blocks.weight_bytes_read();
    if (!backend.run_step(in, [this, &in] { call(in.batch); }))
      blocks.count_read(repeated_bytes.at(rows()));
    else if (in.repeats)
      repeated_bytes[rows()] = blocks.weight_bytes_read() - before;
  }

  std::int64_t repeated_rows_max() const {
    const auto sequences =
        limits.sequences_max > 0 ? limits.sequences_max : limits.rows_max;
    return std::min({limits.rows_max, limits.logit_rows_max, sequences});
  }

  /// Whether the step is as ops::step_input::repeats says, but that its rows
  /// may be prompts. All ranks say the same.
  bool makes_same_calls() const {
    const auto count = plan.tokens.size();
    const auto& of = plan.sequences;
    return keeps_steps && rows() <= repeated_rows_max() &&
           plan.logit_rows.size() == count && tables.size() == count &&
           std::adjacent_find(of.begin(), of.end()) == of.end() &&
           ranks_keep(padded_rows(rows(), repeated_rows_max()));
  }

  bool ranks_keep(std::int64_t rows) const {
    return ranks == nullptr || ranks->is_kept(rows * config.embedding);
  }

  void pad() {
    for (auto more = padded_rows(rows(), repeated_rows_max()) - rows();
         more > 0; --more) {
      plan.logit_rows.push_back(static_cast<std::int32_t>(rows()));
      plan.tokens.push_back(0);
      plan.positions.push_back(0);
      plan.sequences.push_back(static_cast<std::int32_t>(tables.size()));
      tables.emplace_back(spare_table);
    }
  }

  void call(const ops::batch_view& batch) {
    auto* residual = blocks.at(slot::residual);
    backend.embed(*embedding, plan.tokens, residual);
    if (config.embedding_scale != 1)
      backend.scale(residual, config.embedding_scale, rows(), config.embedding);
    blocks.run(batch, plan.prompt_rows, *pool);
    if (!plan.logit_rows.empty())
      run_output();
  }

  /// The rows that have logits, one after the other.
  const float* chosen_rows() {
    const auto* all = blocks.at(slot::residual);
    if (rows() == static_cast<std::int64_t>(plan.logit_rows.size()))
      return all;
    backend.gather_rows(all, plan.logit_rows, config.embedding,
                        gathered->data());
    return gathered->data();
  }

  void run_output() {
    const auto chosen = static_cast<std::int64_t>(plan.logit_rows.size());
    ops::joined_steps with;
    with.norm = output_norm.get();
    with.epsilon = config.norm_epsilon;
    with.normed = gathered_normed->data();
    auto* product = ranks == nullptr ? logits->data() : part_of_logits->data();
    const auto prompts = std::lower_bound(
        plan.logit_rows.begin(), plan.logit_rows.end(), plan.prompt_rows);
    blocks.multiply(output ? *output : *embedding, chosen_rows(),
                    {prompts - plan.logit_rows.begin(), chosen}, with, product);
    if (ranks != nullptr)
      ranks->all_gather(product, chosen, output->rows(), logits->data());
    if (config.logit_scale != 1)
      backend.scale(logits->data(), config.logit_scale, chosen,
                    config.vocabulary);
    if (config.final_soft_cap > 0)
      backend.soft_cap(logits->data(), config.final_soft_cap, chosen,
                       config.vocabulary);
  }

  /// Runs what was submitted, once. False if there are no logits of it.
  bool run_submitted() {
    if (!std::exchange(submitted, false) || rows() == 0)
      return false;
    run();
    return wanted > 0;
  }

  void draw(const ops::draw_plan& draws) {
    assert(draws.rows.size() == wanted);
    drawer->begin(logits->data(), config.vocabulary, draws);
    rows_drawn = static_cast<token_id>(wanted);
  }

  std::span<const float> download_row(std::size_t row) {
    const auto width = static_cast<std::size_t>(config.vocabulary);
    const auto to = std::span{host_logits}.first(width);
    backend.download(logits->data() + row * width, to);
    return to;
  }

  std::span<float> wanted_logits() {
    return std::span{host_logits}.first(
        wanted * static_cast<std::size_t>(config.vocabulary));
  }

  const model_config config;
  ops::backend& backend;
  const decoder_limits limits;
  ops::communicator* ranks;
  std::unique_ptr<ops::weight> embedding;
  std::unique_ptr<ops::weight> output; ///< null if tied
  std::unique_ptr<ops::buffer> output_norm;
  layers blocks;
  std::unique_ptr<ops::kv_pool> pool;
  std::unique_ptr<ops::buffer> gathered;
  std::unique_ptr<ops::buffer> gathered_normed;
  std::unique_ptr<ops::buffer> logits;
  std::unique_ptr<ops::buffer> part_of_logits; ///< of one of several ranks
  std::vector<float> host_logits;
  ops::drawer* drawer = nullptr; ///< the backend's, if it has one
  token_id rows_drawn = 0;       ///< by the last draw
  std::uint64_t weight_bytes = 0;
  std::uint64_t step_bytes = 0; ///< of the backend, for its steps
  engine::step_plan plan;
  std::size_t wanted = 0; ///< rows with logits, without padding
  std::vector<std::span<const std::int32_t>> tables; ///< views into the plan
  bool submitted = false;
  const bool keeps_steps;                ///< those that repeat
  std::vector<std::int32_t> spare_table; ///< of padding rows
  /// Weights read by a step that repeats, of so many rows.
  std::map<std::int64_t, std::uint64_t> repeated_bytes;
};

result<std::uint64_t> kv_block_bytes(const model_config& config,
                                     ops::backend& backend,
                                     std::int32_t block_tokens,
                                     ops::communicator* ranks) {
  auto part = config_of(config, rank_of(ranks));
  if (!part)
    return part.error();
  auto pool = backend.make_kv_pool(kv_shape_of(*part, block_tokens, 1));
  if (!pool)
    return pool.error();
  return static_cast<std::uint64_t>((*pool)->bytes());
}

std::int64_t padded_rows(std::int64_t rows, std::int64_t most) {
  constexpr std::int64_t step = 8;
  const auto wide = rows < step ? static_cast<std::int64_t>(std::bit_ceil(
                                      static_cast<std::uint64_t>(rows)))
                                : (rows + step - 1) / step * step;
  return std::min(wide, most);
}

decoder::decoder() = default;

decoder::~decoder() = default;

result<std::unique_ptr<decoder>>
decoder::make(const weights::checkpoint& file, const model_config& config,
              ops::backend& backend, const decoder_limits& limits,
              const load_progress& progress, ops::communicator* ranks) {
  if (limits.rows_max < 1 || limits.logit_rows_max < 1 ||
      limits.kv_block_tokens < 1 || limits.kv_blocks < 1)
    return error{errc::invalid_argument, "a decoder's limits start at 1"};
  std::unique_ptr<decoder> out{new decoder};
  const auto rank = rank_of(ranks);
  auto part = config_of(config, rank);
  if (!part)
    return part.error();
  out->state_ = std::make_unique<state>(*part, backend, limits,
                                        rank.size == 1 ? nullptr : ranks);
  weight_loader source{file, backend, reading::elements, progress, rank};
  if (auto done = out->state_->load(source); !done)
    return done.error();
  if (file.changed())
    return error{errc::io, file.name() + ": changed while it was loaded"};
  if (auto done = out->state_->allocate(); !done)
    return done.error();
  out->state_->allocate_host();
  return out;
}

result<decoder_bytes> decoder_size(const weights::checkpoint& file,
                                   const model_config& config,
                                   ops::backend& backend,
                                   const decoder_limits& limits,
                                   ops::communicator* ranks) {
  const auto rank = rank_of(ranks);
  auto part = config_of(config, rank);
  if (!part)
    return part.error();
  decoder::state sized{*part, backend, limits,
                       rank.size == 1 ? nullptr : ranks};
  weight_loader source{file, backend, reading::shapes, {}, rank};
  if (auto done = sized.load(source); !done)
    return done.error();
  if (auto done = sized.allocate(); !done)
    return done.error();
  return decoder_bytes{sized.weight_bytes, sized.kv_bytes(),
                       sized.workspace_bytes(), sized.host_bytes()};
}

void decoder::submit(const engine::step_plan& plan) {
  state_->take(plan);
  state_->submitted = true;
}

std::span<const float> decoder::collect() {
  const bool any = state_->run_submitted();
  if (rank_of(state_->ranks).rank != 0)
    return {};
  if (any)
    state_->backend.download(state_->logits->data(), state_->wanted_logits());
  return state_->wanted_logits();
}

bool decoder::has_roles() const {
  return state_->backend.has_roles();
}

bool decoder::draws() const {
  return state_->drawer != nullptr;
}

bool decoder::runs_ahead() const {
  const auto* ranks = state_->ranks;
  return draws() && (ranks == nullptr || ranks->runs_ahead());
}

void decoder::submit_drawn(const engine::step_plan& plan,
                           const ops::draw_plan& draws) {
  state_->take(plan);
  if (state_->rows() > 0)
    state_->run();
  state_->draw(draws);
}

std::span<const ops::drawn_row> decoder::collect_drawn() {
  return state_->drawer->end();
}

std::span<const float> decoder::logits_of(std::size_t logit_row) {
  return state_->download_row(logit_row);
}

std::int32_t decoder::vocabulary() const {
  return state_->config.vocabulary;
}

std::uint64_t decoder::weight_bytes_read() const {
  return state_->blocks.weight_bytes_read();
}

ops::step_gaps decoder::gaps() const {
  return state_->backend.gaps();
}

std::uint64_t decoder::weight_bytes() const {
  return state_->weight_bytes;
}

std::uint64_t decoder::kv_cache_bytes() const {
  return state_->kv_bytes();
}

} // namespace troupe::model
