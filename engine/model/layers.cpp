#include "engine/model/layers.hpp"

#include <algorithm>
#include <cassert>
#include <string>
#include <utility>

namespace troupe::model {

namespace {

bool is_gate(block_op op) {
  return op == block_op::silu_mul || op == block_op::gelu_mul ||
         op == block_op::erf_gelu_mul;
}

ops::gate gate_of(block_op op) {
  assert(is_gate(op));
  return op == block_op::silu_mul   ? ops::gate::silu
         : op == block_op::gelu_mul ? ops::gate::gelu
                                    : ops::gate::erf_gelu;
}

/// Whether the step at `at` is a product that alone reads what the norm before
/// it makes. (No layer reads another one's rows but the residual stream.)
bool can_join_norm(const std::vector<block_step>& block, std::size_t at) {
  const auto& step = block[at];
  if (step.op != block_op::linear || at == 0)
    return false;
  const auto& norm = block[at - 1];
  if (norm.op != block_op::rms_norm || norm.to != step.from ||
      norm.to == slot::residual || step.to == norm.from)
    return false;
  for (auto i = at + 1; i < block.size(); ++i) {
    if (block[i].op == block_op::rms_norm && block[i].to == norm.to)
      return block[i].from != norm.to;
    if (block[i].from == norm.to || block[i].to == norm.to)
      return false;
  }
  return true;
}

} // namespace

result<void> layers::load(weight_loader& source) {
  for (std::int32_t layer = 0; layer < config_.layers; ++layer) {
    const auto& block = config_.family->block_of(layer);
    for (std::size_t at = 0; at < block.size(); ++at)
      if (auto done = load_step(source, layer, block, at); !done)
        return done;
  }
  return {};
}

result<void> layers::load_step(weight_loader& source, std::int32_t layer,
                               const std::vector<block_step>& block,
                               std::size_t at) {
  const auto& step = block[at];
  if (can_join_last(step, layer)) {
    steps_.back().activation = &step;
    return {};
  }
  if (attends_with_last(step, layer)) {
    steps_.back().attention = &step;
    return {};
  }
  loaded_step out;
  out.what = &step;
  out.layer = layer;
  if (can_join_norm(block, at) && !is_added_up(step)) {
    out.norm = steps_.back().what;
    out.norms = std::move(steps_.back().norms);
    steps_.pop_back();
  }
  std::vector<weight_loader::part> parts, biases;
  for (const auto& part : step.weights) {
    const auto cut =
        cut_of(config_, ranks_ == nullptr ? 1 : ranks_->size(), step, part);
    parts.push_back({block_tensor_name(layer, part.name), cut});
    if (!part.bias.empty())
      biases.push_back({block_tensor_name(layer, part.bias),
                        cut.what == cut::outputs ? cut : tensor_cut{}});
  }
  if (auto done = load_weights(source, parts, out); !done)
    return done;
  if (!biases.empty())
    out.bias = source.floats(biases);
  else if (step.op == block_op::layer_norm)
    out.bias = source.zeros(static_cast<std::size_t>(config_.embedding));
  steps_.push_back(std::move(out));
  return {};
}

bool layers::can_join_last(const block_step& step, std::int32_t layer) const {
  if (!is_gate(step.op) || steps_.empty() || steps_.back().layer != layer)
    return false;
  const auto& last = steps_.back();
  return last.what->op == block_op::linear && last.what->to == step.from &&
         !last.bias && (last.norm == nullptr || last.norm->from != step.to);
}

bool layers::attends_with_last(const block_step& step,
                               std::int32_t layer) const {
  if (step.op != block_op::attention || steps_.empty() ||
      steps_.back().layer != layer)
    return false;
  const auto& last = *steps_.back().what;
  return last.op == block_op::norm_parts && last.to == step.from &&
         last.weights.size() == 2 && last.weights[0].rows == width::head &&
         last.weights[1].rows == width::head;
}

result<void> layers::load_weights(weight_loader& source,
                                  const std::vector<weight_loader::part>& parts,
                                  loaded_step& out) {
  const auto op = out.what->op;
  if (is_norm(op)) {
    for (const auto& one : parts)
      out.norms.push_back(source.floats({one}));
  } else if (op == block_op::experts) {
    auto loaded = source.experts(parts, config_.experts);
    if (!loaded)
      return loaded.error();
    out.experts = std::move(*loaded);
  } else if (!parts.empty()) {
    auto loaded = source.weight(parts);
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
  if (ranks_ == nullptr)
    return;
  share_ = backend_.allocate(std::int64_t{rows_max} * config_.embedding);
}

std::int64_t layers::floats() const {
  std::int64_t sum = 0;
  for (const auto& one : slots_)
    sum += one ? one->size() : 0;
  if (share_)
    sum += share_->size();
  return sum;
}

void layers::run(const ops::batch_view& batch, std::int64_t prompts,
                 ops::kv_pool& pool) {
  prompts_ = prompts;
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
    if (step.attention != nullptr)
      return attend(step, batch, pool);
    return norm_parts(step);
  case block_op::linear:
  case block_op::add_linear:
    if (is_added_up(*step.what))
      return add_up(step);
    return multiply(step);
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
    if (ranks_ != nullptr)
      return add_up(step);
    return mix_experts(step, to);
  }
}

bool layers::is_added_up(const block_step& step) const {
  return ranks_ != nullptr && is_reduced(step);
}

/// Each rank has the products of its own columns: their sum goes where the step
/// says, the bias once.
void layers::add_up(const loaded_step& step) {
  const auto& what = *step.what;
  const auto in_place = what.op == block_op::linear;
  auto* sum = in_place ? at(what.to) : share_->data();
  if (what.op == block_op::experts) {
    backend_.clear(sum, rows_, config_.embedding);
    mix_experts(step, sum);
  } else {
    multiply(*step.weight, at(what.from), {prompts_, rows_}, {}, sum);
  }
  ranks_->all_reduce(sum, rows_ * config_.embedding);
  if (step.bias)
    backend_.add_bias(sum, *step.bias, rows_, config_.embedding);
  if (!in_place)
    backend_.add_scaled(sum, 1.0f, rows_, config_.embedding, at(what.to));
}

void layers::attend(const loaded_step& step, const ops::batch_view& batch,
                    ops::kv_pool& pool) {
  const auto& what = step.attention != nullptr ? *step.attention : *step.what;
  ops::head_norms norms;
  if (step.attention != nullptr)
    norms = {step.norms[0].get(), step.norms[1].get(), config_.norm_epsilon};
  const auto layer = pool.shape().layers == 1 ? 0 : step.layer;
  backend_.rope_and_attend(at(what.from), norms, config_.rope_of(step.layer),
                           config_.attention_of(step.layer), batch, layer, pool,
                           at(what.to));
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

void layers::mix_experts(const loaded_step& step, float* to) {
  weight_bytes_read_ +=
      backend_.mix_experts(*step.experts, config_.mixture(),
                           at(step.what->from), at(slot::routed), rows_, to);
}

void layers::multiply(const loaded_step& step) {
  const auto& what = *step.what;
  const auto* activation = step.activation;
  ops::joined_steps with;
  if (step.norm != nullptr) {
    with.norm = step.norms.front().get();
    with.epsilon = config_.norm_epsilon;
    with.normed = at(step.norm->to);
  }
  with.adds = what.op == block_op::add_linear;
  with.bias = step.bias.get();
  if (activation != nullptr) {
    with.gated = gate_of(activation->op);
    with.products = at(what.to);
  }
  multiply(*step.weight, at(step.norm != nullptr ? step.norm->from : what.from),
           {prompts_, rows_}, with,
           at(activation != nullptr ? activation->to : what.to));
}

void layers::multiply(const ops::weight& weight, const float* x,
                      product_rows rows, const ops::joined_steps& with,
                      float* y) {
  const auto multiply_some = [&](std::int64_t first, std::int64_t count,
                                 ops::row_role role) {
    if (count == 0)
      return;
    const auto outputs = weight.rows();
    auto of_some = with;
    if (with.norm != nullptr)
      of_some.normed += first * weight.cols();
    if (with.gated)
      of_some.products += first * outputs;
    backend_.linear_joined(weight, x + first * weight.cols(), count, of_some,
                           y + first * (with.gated ? outputs / 2 : outputs),
                           role);
    weight_bytes_read_ += static_cast<std::uint64_t>(weight.bytes());
  };
  if (!backend_.has_roles())
    return multiply_some(0, rows.all, ops::row_role::output);
  multiply_some(0, rows.prompts, ops::row_role::prompt);
  multiply_some(rows.prompts, rows.all - rows.prompts, ops::row_role::output);
}

} // namespace troupe::model
