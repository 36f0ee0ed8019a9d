#include "engine/model/layers.hpp"

#include <string>
#include <utility>

namespace troupe::model {

result<void> layers::load(weight_loader& source) {
  for (std::int32_t layer = 0; layer < config_.layers; ++layer)
    for (const auto& step : config_.family->block_of(layer))
      if (auto done = load_step(source, layer, step); !done)
        return done;
  return {};
}

result<void> layers::load_step(weight_loader& source, std::int32_t layer,
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
  else if (step.op == block_op::layer_norm)
    out.bias = backend_.upload(
        std::vector<float>(static_cast<std::size_t>(config_.embedding)));
  steps_.push_back(std::move(out));
  return {};
}

result<void> layers::load_weights(weight_loader& source,
                                  const std::vector<std::string>& names,
                                  loaded_step& out) {
  const auto op = out.what->op;
  if (is_norm(op)) {
    for (const auto& name : names)
      out.norms.push_back(source.floats({name}));
  } else if (op == block_op::experts) {
    auto loaded = source.experts(names, config_.experts);
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

void layers::allocate(std::int32_t rows_max) {
  const auto used = slots_of(*config_.family);
  for (std::size_t i = 0; i < slot_count; ++i)
    if (used[i])
      slots_[i] =
          backend_.allocate(rows_max * config_.of(static_cast<slot>(i)));
}

std::int64_t layers::floats() const {
  std::int64_t sum = 0;
  for (const auto& one : slots_)
    sum += one ? one->size() : 0;
  return sum;
}

void layers::run(const ops::batch_view& batch, ops::kv_pool& pool) {
  rows_ = static_cast<std::int64_t>(batch.positions.size());
  for (const auto& step : steps_)
    execute(step, batch, pool);
}

void layers::execute(const loaded_step& step, const ops::batch_view& batch,
                     ops::kv_pool& pool) {
  auto* from = at(step.what->from);
  auto* to = at(step.what->to);
  switch (step.what->op) {
  case block_op::rms_norm:
    return backend_.rms_norm(from, *step.norms.front(), config_.norm_epsilon,
                             rows_, config_.embedding, to);
  case block_op::layer_norm:
    return backend_.layer_norm(from, *step.norms.front(), *step.bias,
                               config_.norm_epsilon, rows_, config_.embedding,
                               to);
  case block_op::norm_parts:
    return norm_parts(step);
  case block_op::linear:
  case block_op::add_linear:
    multiply(*step.weight, from, rows_, to,
             step.what->op == block_op::add_linear);
    if (step.bias)
      backend_.add_bias(to, *step.bias, rows_, step.weight->rows());
    return;
  case block_op::add:
    return backend_.add_scaled(from, config_.residual_scale, rows_,
                               config_.embedding, to);
  case block_op::attention:
    return attend(step, batch, pool);
  case block_op::silu_mul:
    return backend_.silu_mul(from, rows_, config_.feed_forward, to);
  case block_op::gelu_mul:
    return backend_.gelu_mul(from, rows_, config_.feed_forward, to);
  case block_op::erf_gelu_mul:
    return backend_.erf_gelu_mul(from, rows_, config_.feed_forward, to);
  case block_op::erf_gelu:
    return backend_.erf_gelu(to, rows_, config_.feed_forward);
  case block_op::experts:
    return mix_experts(step);
  }
}

void layers::attend(const loaded_step& step, const ops::batch_view& batch,
                    ops::kv_pool& pool) {
  auto* from = at(step.what->from);
  const auto layer = pool.shape().layers == 1 ? 0 : step.layer;
  backend_.rope_and_store(from, config_.heads, config_.rope_of(step.layer),
                          batch, layer, pool);
  backend_.attention(from, config_.attention_of(step.layer), batch, layer, pool,
                     at(step.what->to));
}

void layers::norm_parts(const loaded_step& step) {
  const auto& parts = widths_of(step.what->to);
  ops::column_groups columns;
  columns.stride = config_.of(step.what->to);
  for (std::size_t i = 0; i < step.norms.size(); ++i) {
    const auto part = config_.of(parts[i]);
    columns.cols = config_.of(step.what->weights[i].rows);
    columns.groups = part / columns.cols;
    backend_.rms_norm_groups(at(step.what->to), columns, *step.norms[i],
                             config_.norm_epsilon, rows_);
    columns.first += part;
  }
}

/// Expert by expert, in ascending order: so a row's sum has one order, whatever
/// the other rows chose.
void layers::mix_experts(const loaded_step& step) {
  experts_.make_room(rows_, config_.experts_used);
  backend_.route(at(slot::routed), rows_, config_.experts,
                 config_.normalise_experts, experts_.routing());
  experts_.sort(config_.experts);
  for (std::int32_t i = 0; i < config_.experts; ++i)
    if (const auto chosen = experts_.rows_of(i); !chosen.rows.empty())
      run_expert(step, step.experts[static_cast<std::size_t>(i)], chosen);
}

void layers::run_expert(const loaded_step& step, const expert& weights,
                        const expert_rows& chosen) {
  const auto count = static_cast<std::int64_t>(chosen.rows.size());
  backend_.gather_rows(at(step.what->from), chosen.rows, config_.embedding,
                       at(slot::expert_input));
  multiply(*weights.gate_up, at(slot::expert_input), count,
           at(slot::expert_gate_up), false);
  backend_.silu_mul(at(slot::expert_gate_up), count,
                    config_.expert_feed_forward, at(slot::expert_activated));
  multiply(*weights.down, at(slot::expert_activated), count, at(slot::branch),
           false);
  backend_.add_rows(at(slot::branch), chosen.rows, chosen.shares,
                    config_.embedding, at(step.what->to));
}

void layers::multiply(const ops::weight& weight, const float* x,
                      std::int64_t count, float* y, bool add) {
  backend_.linear(weight, x, count, y, add);
  weight_bytes_read_ += static_cast<std::uint64_t>(weight.bytes());
}

} // namespace troupe::model
