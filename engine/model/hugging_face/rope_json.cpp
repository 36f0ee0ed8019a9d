#include "engine/model/hugging_face/rope_json.hpp"

#include "engine/ops/fixed_root.hpp"
#include "engine/sampling/fixed_math.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numbers>
#include <optional>
#include <utility>

namespace troupe::model::hugging_face {

namespace {

using weights::printable;

constexpr std::int64_t dims_max = 1 << 16;
constexpr std::int64_t whole_max = 2147483647;

/// Llama 3's scaling, as transformers computes it: long waves are stretched by
/// `factor`, short ones are not, between them it goes over smoothly. Returns
/// what each pair's wave is stretched by.
struct llama3_scaling {
  double factor = 0;
  double low_factor = 0;
  double high_factor = 0;
  double context = 0; ///< positions the model was first trained for

  float stretch_of(double wavelength) const {
    if (wavelength < context / high_factor)
      return 1;
    if (wavelength > context / low_factor)
      return static_cast<float>(factor);
    auto smooth =
        (context / wavelength - low_factor) / (high_factor - low_factor);
    return static_cast<float>(1 / ((1 - smooth) / factor + smooth));
  }
};

/// What YaRN multiplies cosine and sine by if nobody says it.
double yarn_scale(double factor) {
  return 1 + 0.1 * sampling::fixed_log(std::max(1.0, factor));
}

} // namespace

template <class T>
void rope_json::put(std::string_view key, T value) {
  out_.metadata[fmt::format("{}.{}", out_.of->architecture, key)] =
      std::move(value);
}

result<void> rope_json::run() {
  for (auto key : {"rope_scaling", "rope_parameters"})
    if (fields_.has(key)) {
      auto inner = fields_.object(key);
      if (!inner)
        return inner.error();
      return inner->has("full_attention") ? by_layer_type(*inner)
                                          : rope_of(*inner);
    }
  return rope_of(fields_);
}

result<void> rope_json::by_layer_type(const json_fields& ropes) {
  auto common = ropes.object("full_attention");
  auto windows = ropes.object("sliding_attention");
  if (!common || !windows)
    return !common ? common.error() : windows.error();
  auto type = windows->text("rope_type", "default");
  if (!type)
    return type.error();
  if (*type != "default")
    return windows->wrong("rope_type", "is a scaling: not supported yet",
                          errc::unsupported);
  if (auto done = window_base(*windows, "rope_theta"); !done)
    return done;
  return rope_of(*common);
}

result<void> rope_json::rope_of(const json_fields& fields) {
  if (auto done = base(fields.has("rope_theta") ? fields : fields_); !done)
    return done;
  if (fields_.has("rope_local_base_freq"))
    if (auto done = window_base(fields_, "rope_local_base_freq"); !done)
      return done;
  if (auto done =
          dimensions(fields.has("partial_rotary_factor") ? fields : fields_);
      !done)
    return done;
  return scaling(fields);
}

result<void> rope_json::base(const json_fields& fields) {
  // A family may have another word for it (family::keys).
  auto otherwise = out_.of->rope_base;
  const auto said = out_.metadata.find(
      fmt::format("{}.rope.freq_base", out_.of->architecture));
  if (said != out_.metadata.end())
    otherwise = std::get<double>(said->second);
  auto theta = fields.positive("rope_theta", otherwise);
  if (!theta)
    return theta.error();
  theta_ = *theta;
  put("rope.freq_base", *theta);
  return {};
}

result<void> rope_json::window_base(const json_fields& fields,
                                    std::string_view key) {
  auto theta = fields.positive(key);
  if (!theta)
    return theta.error();
  put("rope.freq_base_swa", *theta);
  return {};
}

result<void> rope_json::dimensions(const json_fields& fields) {
  auto share = fields.positive("partial_rotary_factor", 1.0);
  if (!share)
    return share.error();
  if (*share > 1)
    return fields.wrong("partial_rotary_factor", "is above 1");
  dims_ = static_cast<std::int64_t>(static_cast<double>(head_dim_) * *share);
  if (dims_ > dims_max)
    return fields_.wrong("head_dim", "is too large");
  put("rope.dimension_count", dims_);
  return {};
}

result<void> rope_json::scaling(const json_fields& fields) {
  auto key = fields.has("rope_type") ? "rope_type" : "type";
  auto type = fields.text(key, "default");
  if (!type)
    return type.error();
  if (*type == "default")
    return {};
  if (*type == "linear")
    return linear(fields);
  if (*type == "llama3")
    return llama3(fields);
  // Older files of Phi-3 call LongRoPE "su" or "yarn".
  if (*type == "longrope" || *type == "su" || fields.has("long_factor"))
    return longrope(fields);
  if (*type == "yarn")
    return yarn(fields);
  return fields.wrong(key,
                      fmt::format("names a scaling that is not supported yet "
                                  "({})",
                                  printable(*type)),
                      errc::unsupported);
}

result<void> rope_json::linear(const json_fields& fields) {
  auto factor = fields.positive("factor");
  if (!factor)
    return factor.error();
  put("rope.scaling.type", std::string{"linear"});
  put("rope.scaling.factor", *factor);
  return {};
}

result<void> rope_json::llama3(const json_fields& fields) {
  llama3_scaling scaling;
  struct field {
    std::string_view key;
    double& out;
  };
  for (auto [key, out] :
       {field{"factor", scaling.factor},
        field{"low_freq_factor", scaling.low_factor},
        field{"high_freq_factor", scaling.high_factor},
        field{"original_max_position_embeddings", scaling.context}}) {
    auto value = fields.positive(key);
    if (!value)
      return value.error();
    out = *value;
  }
  if (scaling.high_factor <= scaling.low_factor)
    return fields.wrong("high_freq_factor", "is not above low_freq_factor");
  const auto pairs = static_cast<std::int32_t>(dims_ / 2);
  const auto step = ops::fixed_root(theta_, std::max(1, pairs));
  double wavelength = 2 * std::numbers::pi;
  auto& factors = out_.vectors["rope_freqs.weight"];
  for (std::int32_t i = 0; i < pairs; ++i, wavelength *= step)
    factors.push_back(scaling.stretch_of(wavelength));
  return {};
}

result<std::int64_t> rope_json::first_context(const json_fields& fields) const {
  const auto key = "original_max_position_embeddings";
  if (fields.has(key))
    return fields.whole(key, 1, whole_max);
  return fields_.whole(fields_.has(key) ? key : "max_position_embeddings", 1,
                       whole_max);
}

result<void> rope_json::yarn(const json_fields& fields) {
  auto factor = fields.positive("factor");
  auto context = first_context(fields);
  auto truncated = fields.flag("truncate", true);
  if (!factor)
    return factor.error();
  if (!context)
    return context.error();
  if (!truncated)
    return truncated.error();
  if (!*truncated)
    return fields.wrong("truncate", "is false: not supported yet",
                        errc::unsupported);
  if (fields.has("mscale") && fields.has("mscale_all_dim"))
    return fields.wrong("mscale", "is not supported yet", errc::unsupported);
  put("rope.scaling.type", std::string{"yarn"});
  put("rope.scaling.factor", *factor);
  put("rope.scaling.original_context_length", *context);
  for (auto [from, to] : {std::pair{"beta_fast", "rope.scaling.yarn_beta_fast"},
                          {"beta_slow", "rope.scaling.yarn_beta_slow"}}) {
    if (!fields.has(from))
      continue;
    auto value = fields.positive(from);
    if (!value)
      return value.error();
    put(to, *value);
  }
  if (!fields.has("attention_factor"))
    return {};
  auto scale = fields.positive("attention_factor");
  if (!scale)
    return scale.error();
  put("rope.scaling.attn_factor", *scale / yarn_scale(*factor));
  return {};
}

result<void> rope_json::longrope(const json_fields& fields) {
  auto context = first_context(fields);
  if (!context)
    return context.error();
  if (*context < 2)
    return fields.wrong("original_max_position_embeddings", "is below 2");
  auto scale = longrope_scale(fields, static_cast<double>(*context));
  if (!scale)
    return scale.error();
  for (auto [from, to] : {std::pair{"long_factor", "rope_factors_long.weight"},
                          {"short_factor", "rope_factors_short.weight"}}) {
    auto values = fields.reals(from, dims_ / 2);
    if (!values)
      return values.error();
    out_.vectors[to] = std::move(*values);
  }
  put("rope.scaling.type", std::string{"longrope"});
  put("rope.scaling.original_context_length", *context);
  put("rope.scaling.attn_factor", *scale);
  return {};
}

result<double> rope_json::longrope_scale(const json_fields& fields,
                                         double context) const {
  if (fields.has("attention_factor"))
    return fields.positive("attention_factor");
  auto whole = fields_.whole("max_position_embeddings", 1, whole_max);
  if (!whole)
    return whole.error();
  auto factor =
      fields.positive("factor", static_cast<double>(*whole) / context);
  if (!factor)
    return factor.error();
  return std::sqrt(1 + sampling::fixed_log(std::max(1.0, *factor)) /
                           sampling::fixed_log(context));
}

} // namespace troupe::model::hugging_face
