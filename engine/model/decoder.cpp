#include "engine/model/decoder.hpp"

#include "engine/model/expert_plan.hpp"

#include <array>
#include <cassert>
#include <cstring>
#include <fmt/format.h>
#include <string>
#include <utility>
#include <vector>

namespace troupe::model {

namespace {

/// The weights of one expert.
struct expert {
  std::unique_ptr<ops::weight> gate_up;
  std::unique_ptr<ops::weight> down;
};

/// A step of one layer with its weights in the backend's memory.
struct loaded_step {
  const block_step* what = nullptr;
  std::int32_t layer = 0;
  std::unique_ptr<ops::weight> weight; ///< of a linear step
  std::unique_ptr<ops::buffer> bias;   ///< of a linear step that has one
  /// Of a norm; one per part, in the order of the step's weights.
  std::vector<std::unique_ptr<ops::buffer>> norms;
  std::vector<expert> experts;
};

ops::kv_shape kv_shape_of(const model_config& config, std::int32_t block_tokens,
                          std::int32_t blocks) {
  return {config.layers, config.kv_heads, config.head_dim, block_tokens,
          blocks};
}

/// Whether a loader reads the elements of the tensors or only their shapes.
enum class reading : std::uint8_t { elements, shapes };

/// Loads tensors one after the other and reports how far it is.
class loader {
public:
  loader(const weights::checkpoint& file, ops::backend& backend, reading what,
         load_progress progress)
      : file_(file), backend_(backend), what_(what),
        progress_(std::move(progress)) {
    for (const auto& one : file.tensors())
      total_ += one.byte_size();
  }

  result<std::unique_ptr<ops::weight>>
  weight(const std::vector<std::string>& names) {
    auto matrices = read_all(names);
    if (!matrices)
      return matrices.error();
    auto loaded = load(matrices->parts, names.front());
    if (loaded)
      advance(matrices->bytes);
    return loaded;
  }

  /// The experts of tensors that hold the rows of one after the other.
  result<std::vector<expert>> experts(const std::vector<std::string>& names,
                                      std::int64_t count) {
    auto stacks = read_all(names);
    if (!stacks)
      return stacks.error();
    const auto& all = stacks->parts; // gate, up, down
    std::vector<expert> out;
    for (std::int64_t i = 0; i < count; ++i) {
      auto gate_up = load(
          {part_of(all[0], i, count), part_of(all[1], i, count)}, names[0]);
      auto down = load({part_of(all[2], i, count)}, names[2]);
      if (!gate_up || !down)
        return !gate_up ? gate_up.error() : down.error();
      out.push_back({std::move(*gate_up), std::move(*down)});
    }
    advance(stacks->bytes);
    return out;
  }

  /// Vectors, one after the other.
  std::unique_ptr<ops::buffer> floats(const std::vector<std::string>& names) {
    std::vector<float> values;
    for (const auto& name : names) {
      const auto& tensor = find(name);
      const auto before = values.size();
      values.resize(before + tensor.bytes.size() / sizeof(float));
      std::memcpy(values.data() + before, tensor.bytes.data(),
                  tensor.bytes.size());
      resident_bytes_ += tensor.bytes.size();
      advance(tensor.bytes.size());
    }
    return backend_.upload(values);
  }

  /// Bytes of all that was loaded, as the backend keeps it.
  std::uint64_t resident_bytes() const {
    return resident_bytes_;
  }

private:
  /// The configuration was read from the same file and has checked names,
  /// shapes and the types of norms.
  const weights::tensor& find(const std::string& name) const {
    auto* found = file_.find_tensor(name);
    assert(found);
    return *found;
  }

  struct read_matrices {
    std::vector<ops::matrix_view> parts;
    std::vector<weights::tensor_data> elements; ///< what the parts view
    std::uint64_t bytes = 0;
  };

  result<read_matrices> read_all(const std::vector<std::string>& names) const {
    read_matrices out;
    for (const auto& name : names) {
      const auto& tensor = find(name);
      out.parts.push_back(tensor.matrix());
      out.bytes += tensor.byte_size();
      if (what_ == reading::shapes)
        continue;
      auto read = file_.read(tensor);
      if (!read)
        return read.error();
      out.parts.back().bytes = read->bytes();
      out.elements.push_back(std::move(*read));
    }
    return out;
  }

  result<std::unique_ptr<ops::weight>>
  load(const std::vector<ops::matrix_view>& parts, const std::string& name) {
    auto loaded = backend_.load(parts);
    if (!loaded)
      return error{loaded.error().code,
                   fmt::format("{}: tensor '{}': {}", file_.name(), name,
                               loaded.error().message)};
    resident_bytes_ += static_cast<std::uint64_t>((*loaded)->bytes());
    return loaded;
  }

  static ops::matrix_view part_of(const ops::matrix_view& whole,
                                  std::int64_t index, std::int64_t count) {
    const auto bytes = whole.bytes.size() / static_cast<std::size_t>(count);
    const auto first = static_cast<std::size_t>(index) * bytes;
    return {whole.type, whole.rows / count, whole.cols,
            whole.bytes.subspan(first, bytes)};
  }

  void advance(std::uint64_t bytes) {
    done_ += bytes;
    if (progress_)
      progress_(done_, total_);
  }

  const weights::checkpoint& file_;
  ops::backend& backend_;
  reading what_;
  load_progress progress_;
  std::uint64_t done_ = 0;
  std::uint64_t total_ = 0;
  std::uint64_t resident_bytes_ = 0;
};

} // namespace

struct decoder::state {
  state(const model_config& config_in, ops::backend& backend_in,
        const decoder_limits& limits_in)
      : config(config_in), backend(backend_in), limits(limits_in) {
    // nop
  }

  result<void> load(loader& source) {
    const auto& family = *config.family;
    auto table = source.weight({std::string{family.embedding}});
    if (!table)
      return table.error();
    embedding = std::move(*table);
    for (std::int32_t layer = 0; layer < config.layers; ++layer)
      for (const auto& step : family.block)
        if (auto done = load_step(source, layer, step); !done)
          return done;
    output_norm = source.floats({std::string{family.output_norm}});
    if (!config.tied_embeddings) {
      auto loaded = source.weight({std::string{family.output}});
      if (!loaded)
        return loaded.error();
      output = std::move(*loaded);
    }
    weight_bytes = source.resident_bytes();
    return {};
  }

  result<void> load_step(loader& source, std::int32_t layer,
                         const block_step& step) {
    loaded_step out;
    out.what = &step;
    out.layer = layer;
    std::vector<std::string> names, biases;
    for (const auto& part : step.weights) {
      names.push_back(block_tensor_name(layer, part.name));
      if (!part.bias.empty())
        biases.push_back(block_tensor_name(layer, part.bias));
    }
    if (auto done = load_weights(source, names, out); !done)
      return done;
    if (!biases.empty())
      out.bias = source.floats(biases);
    steps.push_back(std::move(out));
    return {};
  }

  result<void> load_weights(loader& source,
                            const std::vector<std::string>& names,
                            loaded_step& out) {
    const auto op = out.what->op;
    if (op == block_op::rms_norm || op == block_op::norm_parts) {
      for (const auto& name : names)
        out.norms.push_back(source.floats({name}));
    } else if (op == block_op::experts) {
      auto loaded = source.experts(names, config.experts);
      if (!loaded)
        return loaded.error();
      out.experts = std::move(*loaded);
    } else if (!names.empty()) {
      auto loaded = source.weight(names);
      if (!loaded)
        return loaded.error();
      out.weight = std::move(*loaded);
    }
    return {};
  }

  result<void> allocate() {
    auto made = backend.make_kv_pool(
        kv_shape_of(config, limits.kv_block_tokens, limits.kv_blocks));
    if (!made)
      return made.error();
    pool = std::move(*made);
    const auto used = slots_of(*config.family);
    for (std::size_t i = 0; i < slot_count; ++i)
      if (used[i])
        slots[i] =
            backend.allocate(limits.rows_max * config.of(static_cast<slot>(i)));
    auto chosen = std::int64_t{limits.logit_rows_max};
    gathered = backend.allocate(chosen * config.embedding);
    gathered_normed = backend.allocate(chosen * config.embedding);
    logits = backend.allocate(chosen * config.vocabulary);
    return {};
  }

  void allocate_host() {
    host_logits.resize(static_cast<std::size_t>(logits->size()));
  }

  std::uint64_t workspace_bytes() const {
    // The logits lie in the backend's memory and in the host's.
    auto floats =
        gathered->size() + gathered_normed->size() + 2 * logits->size();
    for (const auto& one : slots)
      floats += one ? one->size() : 0;
    return static_cast<std::uint64_t>(floats) * sizeof(float);
  }

  float* at(slot which) {
    return slots[static_cast<std::size_t>(which)]->data();
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
      assert(plan.tokens[row] >= 0 && plan.tokens[row] < config.vocabulary);
      auto sequence = static_cast<std::size_t>(plan.sequences[row]);
      assert(sequence < plan.tables.size());
      [[maybe_unused]] const auto& table = plan.tables[sequence];
      assert(plan.positions[row] >= 0);
      assert(static_cast<std::size_t>(plan.positions[row] /
                                      limits.kv_block_tokens) < table.size());
    }
    for ([[maybe_unused]] auto row : plan.logit_rows)
      assert(row >= 0 && row < rows());
    for (const auto& table : plan.tables)
      for ([[maybe_unused]] auto block : table)
        assert(block >= 0 && block < limits.kv_blocks);
  }

  void run() {
    tables.assign(plan.tables.begin(), plan.tables.end());
    const ops::batch_view batch{plan.positions, plan.sequences, tables};
    backend.embed(*embedding, plan.tokens, at(slot::residual));
    if (config.embedding_scale != 1)
      backend.scale(at(slot::residual), config.embedding_scale, rows(),
                    config.embedding);
    for (const auto& step : steps)
      execute(step, batch);
    if (!plan.logit_rows.empty())
      run_output();
  }

  void execute(const loaded_step& step, const ops::batch_view& batch) {
    auto* from = at(step.what->from);
    auto* to = at(step.what->to);
    switch (step.what->op) {
    case block_op::rms_norm:
      return backend.rms_norm(from, *step.norms.front(), config.rms_epsilon,
                              rows(), config.embedding, to);
    case block_op::norm_parts:
      return norm_parts(step);
    case block_op::linear:
    case block_op::add_linear:
      multiply(*step.weight, from, rows(), to,
               step.what->op == block_op::add_linear);
      if (step.bias)
        backend.add_bias(to, *step.bias, rows(), step.weight->rows());
      return;
    case block_op::add:
      return backend.add_scaled(from, config.residual_scale, rows(),
                                config.embedding, to);
    case block_op::attention:
      backend.rope_and_store(from, config.heads, config.rope_of(step.layer),
                             batch, step.layer, *pool);
      return backend.attention(from, config.attention_of(step.layer), batch,
                               step.layer, *pool, to);
    case block_op::silu_mul:
      return backend.silu_mul(from, rows(), config.feed_forward, to);
    case block_op::gelu_mul:
      return backend.gelu_mul(from, rows(), config.feed_forward, to);
    case block_op::experts:
      return mix_experts(step);
    }
  }

  void norm_parts(const loaded_step& step) {
    const auto& parts = widths_of(step.what->to);
    ops::column_groups columns;
    columns.stride = config.of(step.what->to);
    for (std::size_t i = 0; i < step.norms.size(); ++i) {
      const auto part = config.of(parts[i]);
      columns.cols = config.of(step.what->weights[i].rows);
      columns.groups = part / columns.cols;
      backend.rms_norm_groups(at(step.what->to), columns, *step.norms[i],
                              config.rms_epsilon, rows());
      columns.first += part;
    }
  }

  /// Expert by expert, in ascending order: so a row's sum has one order,
  /// whatever the other rows chose.
  void mix_experts(const loaded_step& step) {
    experts.make_room(rows(), config.experts_used);
    backend.route(at(slot::routed), rows(), config.experts,
                  config.normalise_experts, experts.routing());
    experts.sort(config.experts);
    for (std::int32_t i = 0; i < config.experts; ++i)
      if (const auto chosen = experts.rows_of(i); !chosen.rows.empty())
        run_expert(step, step.experts[static_cast<std::size_t>(i)], chosen);
  }

  void run_expert(const loaded_step& step, const expert& weights,
                  const expert_rows& chosen) {
    const auto count = static_cast<std::int64_t>(chosen.rows.size());
    backend.gather_rows(at(step.what->from), chosen.rows, config.embedding,
                        at(slot::expert_input));
    multiply(*weights.gate_up, at(slot::expert_input), count,
             at(slot::expert_gate_up), false);
    backend.silu_mul(at(slot::expert_gate_up), count,
                     config.expert_feed_forward, at(slot::expert_activated));
    multiply(*weights.down, at(slot::expert_activated), count, at(slot::branch),
             false);
    backend.add_rows(at(slot::branch), chosen.rows, chosen.shares,
                     config.embedding, at(step.what->to));
  }

  void run_output() {
    auto chosen = static_cast<std::int64_t>(plan.logit_rows.size());
    backend.gather_rows(at(slot::residual), plan.logit_rows, config.embedding,
                        gathered->data());
    backend.rms_norm(gathered->data(), *output_norm, config.rms_epsilon, chosen,
                     config.embedding, gathered_normed->data());
    multiply(output ? *output : *embedding, gathered_normed->data(), chosen,
             logits->data(), false);
    if (config.logit_scale != 1)
      backend.scale(logits->data(), config.logit_scale, chosen,
                    config.vocabulary);
    if (config.final_soft_cap > 0)
      backend.soft_cap(logits->data(), config.final_soft_cap, chosen,
                       config.vocabulary);
    backend.download(logits->data(), wanted_logits());
  }

  void multiply(const ops::weight& weight, const float* x, std::int64_t count,
                float* y, bool add) {
    backend.linear(weight, x, count, y, add);
    weight_bytes_read += static_cast<std::uint64_t>(weight.bytes());
  }

  std::span<float> wanted_logits() {
    return std::span{host_logits}.first(
        plan.logit_rows.size() * static_cast<std::size_t>(config.vocabulary));
  }

  const model_config config;
  ops::backend& backend;
  const decoder_limits limits;
  std::unique_ptr<ops::weight> embedding;
  std::unique_ptr<ops::weight> output; ///< null if tied
  std::unique_ptr<ops::buffer> output_norm;
  std::vector<loaded_step> steps; ///< of all layers, in order
  expert_plan experts;            ///< of the step under way
  std::unique_ptr<ops::kv_pool> pool;
  std::array<std::unique_ptr<ops::buffer>, slot_count> slots;
  std::unique_ptr<ops::buffer> gathered;
  std::unique_ptr<ops::buffer> gathered_normed;
  std::unique_ptr<ops::buffer> logits;
  std::vector<float> host_logits;
  std::uint64_t weight_bytes = 0;
  std::uint64_t weight_bytes_read = 0;
  engine::step_plan plan;
  std::vector<std::span<const std::int32_t>> tables; ///< views into the plan
  bool submitted = false;
};

result<std::uint64_t> kv_block_bytes(const model_config& config,
                                     ops::backend& backend,
                                     std::int32_t block_tokens) {
  auto pool = backend.make_kv_pool(kv_shape_of(config, block_tokens, 1));
  if (!pool)
    return pool.error();
  return static_cast<std::uint64_t>((*pool)->bytes());
}

decoder::decoder() = default;

decoder::~decoder() = default;

result<std::unique_ptr<decoder>> decoder::make(const weights::checkpoint& file,
                                               const model_config& config,
                                               ops::backend& backend,
                                               const decoder_limits& limits,
                                               const load_progress& progress) {
  if (limits.rows_max < 1 || limits.logit_rows_max < 1 ||
      limits.kv_block_tokens < 1 || limits.kv_blocks < 1)
    return error{errc::invalid_argument, "a decoder's limits start at 1"};
  std::unique_ptr<decoder> out{new decoder};
  out->state_ = std::make_unique<state>(config, backend, limits);
  loader source{file, backend, reading::elements, progress};
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
                                   const decoder_limits& limits) {
  decoder::state sized{config, backend, limits};
  loader source{file, backend, reading::shapes, {}};
  if (auto done = sized.load(source); !done)
    return done.error();
  if (auto done = sized.allocate(); !done)
    return done.error();
  return decoder_bytes{sized.weight_bytes,
                       static_cast<std::uint64_t>(sized.pool->bytes()),
                       sized.workspace_bytes()};
}

void decoder::submit(const engine::step_plan& plan) {
  state_->plan = plan;
  state_->check_plan();
  state_->submitted = true;
}

std::span<const float> decoder::collect() {
  if (std::exchange(state_->submitted, false) && state_->rows() > 0)
    state_->run();
  return state_->wanted_logits();
}

std::int32_t decoder::vocabulary() const {
  return state_->config.vocabulary;
}

std::uint64_t decoder::weight_bytes_read() const {
  return state_->weight_bytes_read;
}

std::uint64_t decoder::weight_bytes() const {
  return state_->weight_bytes;
}

std::uint64_t decoder::kv_cache_bytes() const {
  return static_cast<std::uint64_t>(state_->pool->bytes());
}

} // namespace troupe::model
