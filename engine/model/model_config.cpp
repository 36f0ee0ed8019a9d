#include "engine/model/model_config.hpp"

#include "engine/model/metadata.hpp"
#include "engine/weights/printable.hpp"

#include <cmath>
#include <cstring>
#include <fmt/format.h>
#include <initializer_list>
#include <set>

namespace troupe::model {

namespace {

using weights::printable;

constexpr std::int64_t width_max = 1 << 24;
constexpr std::int64_t layers_max = 1 << 16;
constexpr std::int64_t context_max = 1 << 28;

/// Keys that change what a model computes and that nothing here computes.
constexpr std::string_view unsupported_keys[] = {
    "expert_count",
    "attention.sliding_window",
    "attention.scale",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "embedding_scale",
    "residual_scale",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_log_multiplier",
};

/// Reads the configuration step by step; each step returns an error or nothing.
class config_reader {
public:
  explicit config_reader(const weights::checkpoint& file)
      : file_(file), metadata_(file) {
    // nop
  }

  result<model_config> run() {
    using step = result<void> (config_reader::*)();
    for (step one : {&config_reader::family, &config_reader::refusals,
                     &config_reader::sizes, &config_reader::heads,
                     &config_reader::vocabulary, &config_reader::rope,
                     &config_reader::tensors, &config_reader::no_others})
      if (auto done = (this->*one)(); !done)
        return done.error();
    return config_;
  }

private:
  std::string key(std::string_view name) const {
    return fmt::format("{}.{}", config_.family->name, name);
  }

  error wrong(errc code, std::string_view what) const {
    return {code, fmt::format("{}: {}", file_.name(), what)};
  }

  result<void> family() {
    auto name = metadata_.text("general.architecture");
    if (!name)
      return name.error();
    config_.family = find_architecture(*name);
    if (!config_.family)
      return metadata_.wrong("general.architecture",
                             "names a family that is not supported yet (" +
                                 printable(*name) + ")",
                             errc::unsupported);
    return {};
  }

  result<void> refusals() {
    for (auto name : unsupported_keys)
      if (metadata_.has(key(name)))
        return metadata_.wrong(key(name), "is not supported yet",
                               errc::unsupported);
    return {};
  }

  result<void> set(std::int32_t& out, std::string_view name, std::int64_t max,
                   std::optional<std::int64_t> fallback = {}) {
    auto value = metadata_.number(key(name), 1, max, fallback);
    if (!value)
      return value.error();
    out = static_cast<std::int32_t>(*value);
    return {};
  }

  result<void> sizes() {
    struct field {
      std::int32_t* out;
      std::string_view name;
      std::int64_t max;
    };
    for (auto [out, name, max] : std::initializer_list<field>{
             {&config_.layers, "block_count", layers_max},
             {&config_.embedding, "embedding_length", width_max},
             {&config_.feed_forward, "feed_forward_length", width_max},
             {&config_.context_length, "context_length", context_max}})
      if (auto done = set(*out, name, max); !done)
        return done.error();
    auto epsilon = metadata_.positive(key("attention.layer_norm_rms_epsilon"));
    if (!epsilon)
      return epsilon.error();
    config_.rms_epsilon = static_cast<float>(*epsilon);
    if (!(config_.rms_epsilon > 0 && config_.rms_epsilon < 1))
      return metadata_.wrong(key("attention.layer_norm_rms_epsilon"),
                             "is not between 0 and 1");
    return {};
  }

  result<void> heads() {
    if (auto done = set(config_.heads, "attention.head_count", width_max);
        !done)
      return done;
    if (auto done = set(config_.kv_heads, "attention.head_count_kv", width_max,
                        config_.heads);
        !done)
      return done;
    if (config_.heads % config_.kv_heads != 0)
      return metadata_.wrong(
          key("attention.head_count_kv"),
          fmt::format("is {}, which does not divide the {} heads",
                      config_.kv_heads, config_.heads));
    return head_dim();
  }

  result<void> head_dim() {
    auto even_share =
        config_.embedding % config_.heads == 0
            ? std::optional{std::int64_t{config_.embedding} / config_.heads}
            : std::nullopt;
    if (!even_share && !metadata_.has(key("attention.key_length")))
      return metadata_.wrong(
          key("attention.head_count"),
          fmt::format("is {}, which does not divide the embedding of {}",
                      config_.heads, config_.embedding));
    if (auto done = set(config_.head_dim, "attention.key_length", width_max,
                        even_share);
        !done)
      return done;
    auto value_length = metadata_.number(key("attention.value_length"), 1,
                                         width_max, config_.head_dim);
    if (!value_length)
      return value_length.error();
    if (*value_length != config_.head_dim)
      return metadata_.wrong(key("attention.value_length"),
                             "differs from key_length: not supported yet",
                             errc::unsupported);
    if (config_.head_dim % 2 != 0)
      return wrong(errc::corrupt,
                   fmt::format("heads of {} elements have no rope pairs",
                               config_.head_dim));
    if (config_.of(slot::qkv) > width_max)
      return wrong(errc::corrupt,
                   fmt::format("{} heads of {} elements are too many",
                               config_.heads, config_.head_dim));
    return {};
  }

  result<void> vocabulary() {
    auto* table = file_.find_tensor(config_.family->embedding);
    if (!table)
      return missing(config_.family->embedding);
    auto rows = table->matrix().rows;
    if (rows > width_max)
      return wrong(errc::corrupt,
                   fmt::format("a vocabulary of {} is too large", rows));
    config_.vocabulary = static_cast<std::int32_t>(rows);
    auto stated = metadata_.number(key("vocab_size"), 1, width_max, rows);
    if (!stated)
      return stated.error();
    if (*stated != rows)
      return metadata_.wrong(
          key("vocab_size"),
          fmt::format("is {}, but the embedding has {} rows", *stated, rows));
    config_.tied_embeddings = !file_.find_tensor(config_.family->output);
    return {};
  }

  result<void> rope() {
    auto theta = metadata_.positive(key("rope.freq_base"), 10000.0);
    if (!theta)
      return theta.error();
    config_.rope.theta = static_cast<float>(*theta);
    if (!(std::isfinite(config_.rope.theta) && config_.rope.theta > 0))
      return metadata_.wrong(key("rope.freq_base"), "is out of range");
    // How rows are paired is a matter of the writer, not of the family alone.
    auto interleaved = metadata_.flag(weights::rope_interleaved_key,
                                      config_.family->rope_interleaved);
    if (!interleaved)
      return interleaved.error();
    config_.rope.interleaved = *interleaved;
    if (auto done = set(config_.rope.dims, "rope.dimension_count", width_max,
                        config_.head_dim);
        !done)
      return done;
    if (config_.rope.dims != config_.head_dim)
      return metadata_.wrong(key("rope.dimension_count"),
                             "differs from the heads' size: not supported yet",
                             errc::unsupported);
    return rope_factors();
  }

  result<void> rope_factors() {
    auto kind = metadata_.text(key("rope.scaling.type"), "none");
    if (!kind)
      return kind.error();
    auto* table = file_.find_tensor(config_.family->rope_factors);
    if (*kind == "none")
      return table ? table_factors(*table) : result<void>{};
    if (*kind != "linear" || table)
      return metadata_.wrong(key("rope.scaling.type"),
                             "names a scaling that is not supported yet (" +
                                 printable(*kind) + ")",
                             errc::unsupported);
    auto factor = metadata_.positive(key("rope.scaling.factor"));
    if (!factor)
      return factor.error();
    config_.rope.factors.assign(config_.rope.dims / 2,
                                static_cast<float>(*factor));
    return finite_factors();
  }

  result<void> table_factors(const weights::tensor& table) {
    if (auto done =
            shape(config_.family->rope_factors, {config_.rope.dims / 2});
        !done)
      return done;
    if (table.type != ops::element_type::f32)
      return wrong(errc::unsupported,
                   fmt::format("tensor '{}' is not of type F32", table.name));
    config_.rope.factors.resize(config_.rope.dims / 2);
    std::memcpy(config_.rope.factors.data(), table.bytes.data(),
                table.bytes.size());
    return finite_factors();
  }

  result<void> finite_factors() {
    for (auto factor : config_.rope.factors)
      if (!std::isfinite(factor) || factor <= 0)
        return wrong(errc::corrupt,
                     fmt::format("a rope factor is {}, not a finite number "
                                 "above 0",
                                 factor));
    return {};
  }

  error missing(std::string_view name) const {
    return wrong(errc::corrupt, fmt::format("tensor '{}' is missing", name));
  }

  result<void> shape(std::string_view name,
                     std::vector<std::int64_t> expected) {
    auto* found = file_.find_tensor(name);
    if (!found)
      return missing(name);
    known_.insert(found);
    // The writers leave out trailing ones or not.
    auto actual = found->shape;
    while (actual.size() > expected.size() && actual.back() == 1)
      actual.pop_back();
    if (actual == expected)
      return {};
    return wrong(errc::corrupt,
                 fmt::format("tensor '{}' has the shape [{}], not [{}]", name,
                             fmt::join(found->shape, ", "),
                             fmt::join(expected, ", ")));
  }

  result<void> norm(std::string_view name) {
    if (auto done = shape(name, {config_.embedding}); !done)
      return done;
    if (file_.find_tensor(name)->type != ops::element_type::f32)
      return wrong(errc::unsupported,
                   fmt::format("tensor '{}' is not of type F32", name));
    return {};
  }

  result<void> tensors() {
    const auto& family = *config_.family;
    if (auto done =
            shape(family.embedding, {config_.embedding, config_.vocabulary});
        !done)
      return done;
    if (!config_.tied_embeddings)
      if (auto done =
              shape(family.output, {config_.embedding, config_.vocabulary});
          !done)
        return done;
    if (auto done = norm(family.output_norm); !done)
      return done;
    for (std::int32_t layer = 0; layer < config_.layers; ++layer)
      for (const auto& step : family.block)
        if (auto done = step_tensors(layer, step); !done)
          return done;
    return {};
  }

  result<void> step_tensors(std::int32_t layer, const block_step& step) {
    for (const auto& part : step.weights) {
      auto name = block_tensor_name(layer, part.name);
      auto done =
          step.op == block_op::rms_norm
              ? norm(name)
              : shape(name, {config_.of(step.from), config_.of(part.rows)});
      if (!done)
        return done;
    }
    return {};
  }

  result<void> no_others() {
    for (const auto& one : file_.tensors())
      if (!known_.contains(&one))
        return wrong(errc::unsupported,
                     fmt::format("tensor '{}' has no meaning in the family "
                                 "'{}': not supported yet",
                                 one.name, config_.family->name));
    return {};
  }

  const weights::checkpoint& file_;
  metadata metadata_;
  model_config config_;
  std::set<const weights::tensor*> known_;
};

} // namespace

std::int64_t model_config::of(width which) const {
  switch (which) {
  case width::embedding:
    return embedding;
  case width::query:
    return std::int64_t{heads} * head_dim;
  case width::key_value:
    return std::int64_t{kv_heads} * head_dim;
  case width::feed_forward:
    return feed_forward;
  case width::vocabulary:
    return vocabulary;
  }
  return 0;
}

std::int64_t model_config::of(slot which) const {
  std::int64_t sum = 0;
  for (auto part : widths_of(which))
    sum += of(part);
  return sum;
}

result<model_config> read_model_config(const weights::checkpoint& file) {
  return config_reader{file}.run();
}

std::string block_tensor_name(std::int32_t layer, std::string_view name) {
  return fmt::format("blk.{}.{}", layer, name);
}

} // namespace troupe::model
