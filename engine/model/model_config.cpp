#include "engine/model/model_config.hpp"

#include "engine/model/known_tensors.hpp"
#include "engine/model/metadata.hpp"
#include "engine/model/rope_config.hpp"
#include "engine/weights/printable.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <fmt/format.h>
#include <initializer_list>
#include <utility>

namespace troupe::model {

namespace {

constexpr std::int64_t width_max = 1 << 24;
constexpr std::int64_t layers_max = 1 << 16;
constexpr std::int64_t context_max = 1 << 28;
constexpr std::int64_t experts_max = 1 << 16;

/// Keys that change what a model computes, refused unless the family's row says
/// that it has them.
constexpr std::string_view peculiar_keys[] = {
    "attention.clamp_kqv",
    "attention.key_length_swa",
    "attention.max_alibi_bias",
    "attention.output_scale",
    "attention.scale",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.temperature_length",
    "attn_logit_softcapping",
    "embedding_scale",
    "expert_count",
    "expert_gating_func",
    "expert_group_count",
    "expert_shared_count",
    "expert_weights_norm",
    "expert_weights_scale",
    "final_logit_softcapping",
    "leading_dense_block_count",
    "logit_scale",
    "residual_scale",
    "rope.dimension_count_swa",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.alpha",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_log_multiplier",
    "router_logit_softcapping",
    "use_parallel_residual",
};

/// Reads the configuration step by step; each step returns an error or nothing.
class config_reader {
public:
  config_reader(const weights::checkpoint& file, std::int32_t longest)
      : file_(file), metadata_(file), tensors_(file), longest_(longest) {
    // nop
  }

  result<model_config> run() {
    using step = result<void> (config_reader::*)();
    for (step one : {&config_reader::family, &config_reader::peculiarities,
                     &config_reader::sizes, &config_reader::heads,
                     &config_reader::experts, &config_reader::vocabulary,
                     &config_reader::tensors, &config_reader::rope,
                     &config_reader::windows, &config_reader::attention,
                     &config_reader::scales, &config_reader::pooled})
      if (auto done = (this->*one)(); !done)
        return done.error();
    if (auto done = tensors_.no_others(config_.family->name); !done)
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
                                 weights::printable(*name) + ")",
                             errc::unsupported);
    return {};
  }

  bool may_have(std::string_view name) const {
    auto among = [&](const std::vector<std::string_view>& names) {
      return std::find(names.begin(), names.end(), name) != names.end();
    };
    return among(config_.family->may_have) || among(config_.family->must_have);
  }

  result<void> peculiarities() {
    for (auto name : peculiar_keys)
      if (metadata_.has(key(name)) && !may_have(name))
        return metadata_.wrong(key(name), "is not supported yet",
                               errc::unsupported);
    for (auto name : config_.family->must_have)
      if (!metadata_.has(key(name)))
        return metadata_.wrong(key(name), "is missing");
    return {};
  }

  struct size_field {
    std::int32_t* out;
    std::string_view name;
    std::int64_t max;
  };

  result<void> set(std::int32_t& out, std::string_view name, std::int64_t max,
                   std::optional<std::int64_t> fallback = {}) {
    auto value = metadata_.number(key(name), 1, max, fallback);
    if (!value)
      return value.error();
    out = static_cast<std::int32_t>(*value);
    return {};
  }

  result<void> sizes() {
    for (auto [out, name, max] : std::initializer_list<size_field>{
             {&config_.layers, "block_count", layers_max},
             {&config_.embedding, "embedding_length", width_max},
             {&config_.feed_forward, "feed_forward_length", width_max},
             {&config_.context_length, "context_length", context_max}})
      if (auto done = set(*out, name, max); !done)
        return done.error();
    const auto name =
        key(config_.family->encoder ? "attention.layer_norm_epsilon"
                                    : "attention.layer_norm_rms_epsilon");
    auto epsilon = metadata_.positive(name);
    if (!epsilon)
      return epsilon.error();
    config_.norm_epsilon = static_cast<float>(*epsilon);
    if (!(config_.norm_epsilon > 0 && config_.norm_epsilon < 1))
      return metadata_.wrong(name, "is not between 0 and 1");
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

  result<void> experts() {
    if (!may_have("expert_count"))
      return {};
    for (auto [out, name, max] : std::initializer_list<size_field>{
             {&config_.experts, "expert_count", experts_max},
             {&config_.experts_used, "expert_used_count", experts_max},
             {&config_.expert_feed_forward, "expert_feed_forward_length",
              width_max}})
      if (auto done = set(*out, name, max); !done)
        return done;
    if (config_.experts_used > config_.experts)
      return metadata_.wrong(key("expert_used_count"),
                             fmt::format("is {}, but there are {} experts",
                                         config_.experts_used,
                                         config_.experts));
    auto normalised = metadata_.flag(key("expert_weights_norm"), true);
    if (!normalised)
      return normalised.error();
    config_.normalise_experts = *normalised;
    return {};
  }

  result<void> vocabulary() {
    auto* table = file_.find_tensor(config_.family->embedding);
    if (!table)
      return wrong(errc::corrupt, fmt::format("tensor '{}' is missing",
                                              config_.family->embedding));
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
    if (config_.family->no_rope_every == 1)
      return {};
    rope_reader reader{metadata_,
                       tensors_,
                       file_,
                       *config_.family,
                       {config_.head_dim, config_.context_length,
                        longest_ > 0 ? longest_ : config_.context_length}};
    auto rope = reader.run();
    auto of_windows = rope ? reader.of_windows(*rope) : rope;
    if (!of_windows)
      return of_windows.error();
    config_.rope = std::move(*rope);
    config_.window_rope = std::move(*of_windows);
    config_.short_rope = reader.took_short_factors();
    return {};
  }

  result<void> windows() {
    if (!config_.family->window_period)
      return {};
    auto window = metadata_.number(key("attention.sliding_window"), 0,
                                   context_max, std::int64_t{0});
    if (!window)
      return window.error();
    config_.window = static_cast<std::int32_t>(*window);
    if (config_.window == 0)
      return {};
    const auto name = key("attention.sliding_window_pattern");
    return metadata_.has_flags(name) ? listed_windows(name)
                                     : regular_windows(name);
  }

  result<void> listed_windows(std::string_view name) {
    auto list = metadata_.flags(name);
    if (!list)
      return list.error();
    config_.windowed = **list;
    if (config_.windowed.size() != static_cast<std::size_t>(config_.layers))
      return metadata_.wrong(name, fmt::format("has {} entries for {} layers",
                                               config_.windowed.size(),
                                               config_.layers));
    return {};
  }

  result<void> regular_windows(std::string_view name) {
    auto period = metadata_.number(
        name, 0, layers_max, std::int64_t{*config_.family->window_period});
    if (!period)
      return period.error();
    const auto whole = config_.family->window_after_first ? 0 : *period - 1;
    for (std::int32_t layer = 0; layer < config_.layers; ++layer)
      config_.windowed.push_back(*period == 0 || layer % *period != whole);
    return {};
  }

  /// A factor of `name`, `otherwise` if the file has none.
  result<void> factor(float& out, std::string_view name, float otherwise) {
    auto value = metadata_.positive(key(name), otherwise);
    if (!value)
      return value.error();
    out = static_cast<float>(*value);
    if (!std::isfinite(out) || out <= 0)
      return metadata_.wrong(key(name), "is out of range");
    return {};
  }

  /// Whether all that makes queries, keys and values is in bf16.
  bool makes_qkv_in_bf16() const {
    for (std::int32_t layer = 0; layer < config_.layers; ++layer)
      for (const auto& step : config_.family->block_of(layer))
        if (step.to == slot::qkv && step.op == block_op::linear)
          for (const auto& part : step.weights)
            if (auto* found =
                    file_.find_tensor(block_tensor_name(layer, part.name));
                !found || found->type != ops::element_type::bf16)
              return false;
    return true;
  }

  result<void> attention() {
    config_.bf16_attention = makes_qkv_in_bf16();
    config_.attention.heads = config_.heads;
    const bool wide = config_.layers == config_.family->wide_scale_layers;
    const auto scaled_by =
        wide ? config_.embedding / config_.heads : config_.head_dim;
    const auto usual = 1.0f / std::sqrt(static_cast<float>(scaled_by));
    if (auto done = factor(config_.attention.scale, "attention.scale", usual);
        !done)
      return done;
    if (!metadata_.has(key("attn_logit_softcapping")))
      return {};
    return factor(config_.attention.soft_cap, "attn_logit_softcapping", 1);
  }

  result<void> scales() {
    struct field {
      float* out;
      std::string_view name;
    };
    if (config_.family->embedding_root)
      config_.embedding_scale = embedding_root();
    float logit_divisor = 1;
    for (auto [out, name] : std::initializer_list<field>{
             {&config_.embedding_scale, "embedding_scale"},
             {&config_.residual_scale, "residual_scale"},
             {&logit_divisor, "logit_scale"}})
      if (auto done = factor(*out, name, *out); !done)
        return done;
    config_.logit_scale = 1 / logit_divisor;
    if (!std::isfinite(config_.logit_scale) || config_.logit_scale == 0)
      return metadata_.wrong(key("logit_scale"), "is out of range");
    if (!metadata_.has(key("final_logit_softcapping")))
      return {};
    return factor(config_.final_soft_cap, "final_logit_softcapping", 1);
  }

  /// The root of the embedding's width in the type of the table, as the model
  /// was trained with.
  float embedding_root() const {
    const auto root = std::sqrt(static_cast<float>(config_.embedding));
    if (file_.find_tensor(config_.family->embedding)->type !=
        ops::element_type::bf16)
      return root;
    auto bits = std::bit_cast<std::uint32_t>(root);
    bits += 0x7fff + (bits >> 16 & 1);
    return std::bit_cast<float>(bits & 0xffff0000u);
  }

  result<void> matrix(std::string_view name, std::int64_t inputs,
                      std::int64_t outputs) {
    auto found = tensors_.shaped(name, {inputs, outputs});
    return found ? result<void>{} : found.error();
  }

  result<void> vector(std::string_view name, std::int64_t size) {
    auto found = tensors_.vector(name, size);
    return found ? result<void>{} : found.error();
  }

  result<void> tensors() {
    const auto& family = *config_.family;
    if (auto done =
            matrix(family.embedding, config_.embedding, config_.vocabulary);
        !done)
      return done;
    if (!config_.tied_embeddings)
      if (auto done =
              matrix(family.output, config_.embedding, config_.vocabulary);
          !done)
        return done;
    if (!family.output_norm.empty())
      if (auto done = vector(family.output_norm, config_.embedding); !done)
        return done;
    for (std::int32_t layer = 0; layer < config_.layers; ++layer)
      for (const auto& step : family.block_of(layer))
        for (const auto& part : step.weights)
          if (auto done = part_tensors(layer, step, part); !done)
            return done;
    return {};
  }

  result<void> part_tensors(std::int32_t layer, const block_step& step,
                            const weight_part& part) {
    const auto name = block_tensor_name(layer, part.name);
    if (step.op == block_op::experts)
      return expert_tensor(name, part);
    if (!part.bias.empty())
      if (auto done = vector(block_tensor_name(layer, part.bias),
                             config_.of(part.rows));
          !done)
        return done;
    if (is_norm(step.op))
      return vector(name, config_.of(part.rows));
    return matrix(name, config_.of(step.from), config_.of(part.rows));
  }

  // -- models that draw no tokens ---------------------------------------------

  result<void> pooled() {
    if (config_.family->encoder)
      if (auto done = encoder(); !done)
        return done;
    if (auto done = pooling_type(); !done || !config_.pooled)
      return done;
    auto done = head();
    return done ? lengths() : done;
  }

  result<void> encoder() {
    auto causal = metadata_.flag(key("attention.causal"), false);
    if (!causal)
      return causal.error();
    if (*causal)
      return metadata_.wrong(key("attention.causal"),
                             "is true: not supported yet", errc::unsupported);
    return embedding_tensors();
  }

  result<void> norm(std::string_view name) {
    auto done = vector(fmt::format("{}.weight", name), config_.embedding);
    if (!done || !config_.family->biased_norms)
      return done;
    return vector(fmt::format("{}.bias", name), config_.embedding);
  }

  result<void> embedding_tensors() {
    if (auto done = norm("token_embd_norm"); !done)
      return done;
    if (!config_.family->learned_positions)
      return {};
    auto positions = table("position_embd.weight");
    auto types = table("token_types.weight");
    if (!positions || !types)
      return !positions ? positions.error() : types.error();
    if (*positions < config_.context_length)
      return metadata_.wrong(
          key("context_length"),
          fmt::format("is {}, but the table of positions has {} rows",
                      config_.context_length, *positions));
    config_.types = static_cast<std::int32_t>(*types);
    return {};
  }

  /// Rows of a table of embeddings.
  result<std::int64_t> table(std::string_view name) {
    auto* found = file_.find_tensor(name);
    const auto rows =
        found && found->byte_size() > 0 ? found->matrix().rows : 1;
    auto done = tensors_.shaped(
        name, rows > 1 ? std::vector<std::int64_t>{config_.embedding, rows}
                       : std::vector<std::int64_t>{config_.embedding});
    if (!done)
      return done.error();
    return std::min(rows, width_max);
  }

  /// GGUF's numbers: none, mean, first ("cls"), last, score ("rank"). A decoder
  /// that says nothing draws tokens.
  result<void> pooling_type() {
    const auto name = key("pooling_type");
    const bool encoder = config_.family->encoder;
    auto type = metadata_.number(name, 0, 1 << 16, std::int64_t{encoder});
    auto normalised = metadata_.flag(weights::normalised_key, true);
    auto sigmoid = metadata_.flag(weights::sigmoid_key, true);
    auto of_mean = metadata_.flag(weights::score_of_mean_key, false);
    for (const auto* flag : {&normalised, &sigmoid, &of_mean})
      if (!*flag)
        return flag->error();
    if (!type)
      return type.error();
    if (*type == 0 && !encoder)
      return {};
    if (*type < 1 || *type > (encoder ? 4 : 3))
      return metadata_.wrong(name,
                             fmt::format("is {}: not supported yet", *type),
                             errc::unsupported);
    using enum pooling::rows;
    auto& out = config_.pooling;
    config_.pooled = true;
    out.has_head = *type == 4;
    out.of = *type == 3 ? last : *type == 1 || *of_mean ? mean : first;
    out.normalised = *normalised && !out.has_head;
    out.sigmoid = *sigmoid && out.has_head;
    return {};
  }

  result<void> head() {
    auto& out = config_.pooling;
    if (!out.has_head)
      return {};
    const auto labels_key = key("classifier.output_labels");
    auto labels = metadata_.texts(labels_key);
    if (!labels)
      return labels.error();
    if (*labels && (*labels)->size() > 1)
      return metadata_.wrong(labels_key,
                             fmt::format("names {} labels, not one: not "
                                         "supported yet",
                                         (*labels)->size()),
                             errc::unsupported);
    if (auto done = matrix("cls.weight", config_.embedding, config_.embedding);
        !done)
      return done;
    out.biased_head = file_.find_tensor("cls.bias") != nullptr;
    if (out.biased_head)
      if (auto done = vector("cls.bias", config_.embedding); !done)
        return done;
    if (config_.family->gelu_head)
      if (auto done = norm("cls.norm"); !done)
        return done;
    auto weight = tensors_.shaped("cls.output.weight", {config_.embedding});
    return weight ? vector("cls.output.bias", 1) : weight.error();
  }

  result<void> lengths() {
    auto& out = config_.pooling.output;
    if (config_.pooling.has_head) {
      out.what = text::pooled_output::kind::score;
      return {};
    }
    out.size = static_cast<std::uint32_t>(config_.embedding);
    auto any = metadata_.flag(weights::matryoshka_key, false);
    if (!any)
      return any.error();
    out.may_be_cut = *any;
    auto some = metadata_.numbers(weights::matryoshka_lengths_key);
    if (!some)
      return some.error();
    if (!*some)
      return {};
    out.may_be_cut = true;
    for (auto length : **some) {
      if (length < 1 || length > config_.embedding)
        return metadata_.wrong(
            weights::matryoshka_lengths_key,
            fmt::format("holds {}, not a length from 1 to {}", length,
                        config_.embedding));
      out.lengths.push_back(static_cast<std::uint32_t>(length));
    }
    return {};
  }

  // -- tensors of the blocks --------------------------------------------------

  result<void> expert_tensor(std::string_view name, const weight_part& part) {
    const auto inputs = part.rows == width::embedding
                            ? width::expert_feed_forward
                            : width::embedding;
    auto found = tensors_.shaped(
        name, {config_.of(inputs), config_.of(part.rows), config_.experts});
    return found ? result<void>{} : found.error();
  }

  const weights::checkpoint& file_;
  metadata metadata_;
  known_tensors tensors_;
  const std::int32_t longest_;
  model_config config_;
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
  case width::head:
    return head_dim;
  case width::feed_forward:
    return feed_forward;
  case width::vocabulary:
    return vocabulary;
  case width::experts:
    return experts;
  case width::expert_feed_forward:
    return expert_feed_forward;
  case width::qkv:
    return of(slot::qkv);
  case width::gate_up:
    return of(slot::gate_up);
  }
  return 0;
}

std::int64_t model_config::of(slot which) const {
  std::int64_t sum = 0;
  for (auto part : widths_of(which))
    sum += of(part);
  return sum;
}

const ops::rope_params& model_config::rope_of(std::int32_t layer) const {
  static const ops::rope_params none;
  const auto every = family->no_rope_every;
  if (every > 0 && (layer + 1) % every == 0)
    return none;
  return has_window(layer) ? window_rope : rope;
}

std::vector<ops::rope_params> model_config::ropes() const {
  std::vector<ops::rope_params> out;
  for (std::int32_t layer = 0; layer < layers; ++layer)
    if (const auto& one = rope_of(layer);
        std::find(out.begin(), out.end(), one) == out.end())
      out.push_back(one);
  return out;
}

ops::attention_params model_config::attention_of(std::int32_t layer) const {
  auto out = attention;
  out.window = has_window(layer) ? window : 0;
  if (!family->encoder)
    return out;
  // An encoder's window has its row in the middle.
  out.ahead = has_window(layer) ? window / 2 : ops::all_ahead;
  out.window = has_window(layer) ? window / 2 + 1 : 0;
  return out;
}

ops::mixture_params model_config::mixture() const {
  return {experts, experts_used, normalise_experts, embedding,
          expert_feed_forward};
}

bool model_config::has_window(std::int32_t layer) const {
  return window > 0 && windowed[static_cast<std::size_t>(layer)];
}

result<model_config> read_model_config(const weights::checkpoint& file,
                                       std::int32_t longest) {
  return config_reader{file, longest}.run();
}

std::string block_tensor_name(std::int32_t layer, std::string_view name) {
  return fmt::format("blk.{}.{}", layer, name);
}

} // namespace troupe::model
