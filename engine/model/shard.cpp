#include "engine/model/shard.hpp"

#include <algorithm>
#include <fmt/format.h>

namespace troupe::model {

namespace {

error not_divisible(const char* what, std::int32_t count, std::int32_t size) {
  return {errc::unsupported,
          fmt::format("tensor_parallel_size: the model's {} {} cannot be "
                      "divided by {}",
                      count, what, size)};
}

/// A norm over all heads together would need the other ranks' numbers.
bool norms_whole_parts(const architecture& family) {
  return std::any_of(
      family.block.begin(), family.block.end(), [](const auto& step) {
        return step.op == block_op::norm_parts &&
               std::any_of(
                   step.weights.begin(), step.weights.end(),
                   [](const auto& part) { return part.rows != width::head; });
      });
}

/// Slots whose columns are divided.
bool is_divided(slot which) {
  return which == slot::attended || which == slot::activated;
}

} // namespace

result<model_config> config_of(const model_config& whole, const shard& rank) {
  auto out = whole;
  if (rank.size == 1)
    return out;
  if (whole.pooled)
    return error{errc::unsupported, "tensor_parallel_size: models that are "
                                    "pooled are not divided"};
  if (norms_whole_parts(*whole.family))
    return error{errc::unsupported,
                 fmt::format("tensor_parallel_size: {} norms all heads "
                             "together and is not divided",
                             whole.family->name)};
  struct divided {
    const char* what;
    std::int32_t& count;
  };
  for (auto [what, count] :
       {divided{"heads", out.heads},
        divided{"feed-forward columns", out.feed_forward},
        divided{"tokens of the vocabulary", out.vocabulary}}) {
    // A mixture of experts may name feed-forward columns that it has not.
    if (&count == &out.feed_forward && whole.experts > 0)
      continue;
    if (count % rank.size != 0)
      return not_divisible(what, count, rank.size);
    count /= rank.size;
  }
  if (whole.experts > 0) {
    if (whole.expert_feed_forward % rank.size != 0)
      return not_divisible("feed-forward columns of an expert",
                           whole.expert_feed_forward, rank.size);
    out.expert_feed_forward /= rank.size;
  }
  // Where there are fewer KV heads than ranks, some ranks have the same one.
  if (whole.kv_heads % rank.size != 0 && rank.size % whole.kv_heads != 0)
    return not_divisible("KV heads", whole.kv_heads, rank.size);
  out.kv_shares = std::min(whole.kv_heads, rank.size);
  out.kv_heads /= out.kv_shares;
  out.attention.heads = out.heads;
  out.vocabulary = whole.vocabulary; // of the tokens that it knows
  return out;
}

tensor_cut cut_of(const model_config& config, std::int32_t size,
                  const block_step& step, const weight_part& part) {
  using group = tensor_cut::group;
  const auto of_rank = [&](width of) {
    return group{config.of(of) * size, size};
  };
  const group keys{config.of(width::key_value) * config.kv_shares,
                   config.kv_shares};
  switch (part.rows) {
  case width::query:
  case width::feed_forward:
    return {cut::outputs, {of_rank(part.rows)}};
  case width::key_value:
    return {cut::outputs, {keys}};
  case width::qkv:
    return {cut::outputs, {of_rank(width::query), keys, keys}};
  case width::gate_up:
    return {cut::outputs,
            {of_rank(width::feed_forward), of_rank(width::feed_forward)}};
  case width::expert_feed_forward:
    return {cut::outputs, std::vector(static_cast<std::size_t>(config.experts),
                                      of_rank(part.rows))};
  case width::embedding:
  case width::head:
  case width::vocabulary:
  case width::experts:
    break;
  }
  // What experts give is read from their own columns.
  if (step.op == block_op::experts ||
      (!is_norm(step.op) && is_divided(step.from)))
    return {cut::inputs, {}};
  return {};
}

bool is_reduced(const block_step& step) {
  return step.op == block_op::experts ||
         ((step.op == block_op::linear || step.op == block_op::add_linear) &&
          is_divided(step.from));
}

} // namespace troupe::model
