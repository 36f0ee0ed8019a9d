#include "engine/model/decoder.hpp"

#include <array>
#include <cassert>
#include <cstring>
#include <fmt/format.h>
#include <string>
#include <utility>
#include <vector>

namespace troupe::model {

namespace {

/// A step of one layer with its weights in the backend's memory.
struct loaded_step {
  const block_step* what = nullptr;
  std::int32_t layer = 0;
  std::unique_ptr<ops::weight> weight; ///< of a linear step
  std::unique_ptr<ops::buffer> norm;   ///< of a norm
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
    std::vector<ops::matrix_view> parts;
    std::vector<weights::tensor_data> elements; // what the parts view
    std::uint64_t bytes = 0;
    for (const auto& name : names) {
      const auto& tensor = find(name);
      parts.push_back(tensor.matrix());
      bytes += tensor.byte_size();
      if (what_ == reading::shapes)
        continue;
      auto read = file_.read(tensor);
      if (!read)
        return read.error();
      parts.back().bytes = read->bytes();
      elements.push_back(std::move(*read));
    }
    auto loaded = backend_.load(parts);
    if (!loaded)
      return error{loaded.error().code,
                   fmt::format("{}: tensor '{}': {}", file_.name(),
                               names.front(), loaded.error().message)};
    resident_bytes_ += static_cast<std::uint64_t>((*loaded)->bytes());
    advance(bytes);
    return loaded;
  }

  std::unique_ptr<ops::buffer> floats(const std::string& name) {
    const auto& tensor = find(name);
    std::vector<float> values(tensor.bytes.size() / sizeof(float));
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    resident_bytes_ += tensor.bytes.size();
    advance(tensor.bytes.size());
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
    output_norm = source.floats(std::string{family.output_norm});
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
    loaded_step out{&step, layer, nullptr, nullptr};
    std::vector<std::string> names;
    for (const auto& part : step.weights)
      names.push_back(block_tensor_name(layer, part.name));
    if (step.op == block_op::rms_norm) {
      out.norm = source.floats(names.front());
    } else if (!names.empty()) {
      auto loaded = source.weight(names);
      if (!loaded)
        return loaded.error();
      out.weight = std::move(*loaded);
    }
    steps.push_back(std::move(out));
    return {};
  }

  result<void> allocate() {
    auto made = backend.make_kv_pool(
        kv_shape_of(config, limits.kv_block_tokens, limits.kv_blocks));
    if (!made)
      return made.error();
    pool = std::move(*made);
    for (std::size_t i = 0; i < slot_count; ++i)
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
      floats += one->size();
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
      backend.rms_norm(from, *step.norm, config.rms_epsilon, rows(),
                       config.embedding, to);
      return;
    case block_op::linear:
      return multiply(*step.weight, from, rows(), to, false);
    case block_op::add_linear:
      return multiply(*step.weight, from, rows(), to, true);
    case block_op::attention:
      backend.rope_and_store(from, config.heads, config.rope, batch, step.layer,
                             *pool);
      backend.attention(from, config.heads, batch, step.layer, *pool, to);
      return;
    case block_op::silu_mul:
      backend.silu_mul(from, rows(), config.feed_forward, to);
      return;
    }
  }

  void run_output() {
    auto chosen = static_cast<std::int64_t>(plan.logit_rows.size());
    backend.gather_rows(at(slot::residual), plan.logit_rows, config.embedding,
                        gathered->data());
    backend.rms_norm(gathered->data(), *output_norm, config.rms_epsilon, chosen,
                     config.embedding, gathered_normed->data());
    multiply(output ? *output : *embedding, gathered_normed->data(), chosen,
             logits->data(), false);
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
