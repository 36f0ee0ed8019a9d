#include "engine/model/rope_config.hpp"

#include "engine/ops/fixed_root.hpp"
#include "engine/sampling/fixed_math.hpp"
#include "engine/weights/printable.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <initializer_list>
#include <numbers>

namespace troupe::model {

namespace {

constexpr std::int64_t context_max = 1 << 28;
constexpr std::string_view long_factors = "rope_factors_long.weight";
constexpr std::string_view short_factors = "rope_factors_short.weight";

} // namespace

std::vector<float> yarn_factors(const yarn_scaling& yarn, double theta,
                                std::int32_t dims) {
  // How often pair i turns within the context; it falls from pair to pair.
  std::vector<double> turns;
  const auto step = ops::fixed_root(theta, std::max(1, dims / 2));
  double wave = 2 * std::numbers::pi;
  for (std::int32_t i = 0; i < dims; ++i, wave *= step)
    turns.push_back(yarn.context / wave);
  // The last pair that is at least as fast, the first that is at most as slow.
  const auto last_pair = static_cast<double>(dims - 1);
  double low = 0, high = last_pair;
  for (std::int32_t i = 0; i < dims && turns[i] >= yarn.fast; ++i)
    low = i;
  for (std::int32_t i = dims - 1; i >= 0 && turns[i] <= yarn.slow; --i)
    high = i;
  if (low == high)
    high += 0.001;
  std::vector<float> out;
  for (std::int32_t i = 0; i < dims / 2; ++i) {
    const auto stretched = std::clamp((i - low) / (high - low), 0.0, 1.0);
    const auto frequency = stretched / yarn.factor + (1 - stretched);
    out.push_back(static_cast<float>(1 / frequency));
  }
  return out;
}

result<ops::rope_params> rope_reader::run() {
  using step = result<void> (rope_reader::*)();
  for (step one :
       {&rope_reader::base, &rope_reader::dimensions, &rope_reader::scaling})
    if (auto done = (this->*one)(); !done)
      return done.error();
  return rope_;
}

result<ops::rope_params>
rope_reader::of_windows(const ops::rope_params& rope) const {
  if (family_.window_rope_base == 0)
    return rope;
  auto theta =
      metadata_.positive(key("rope.freq_base_swa"), family_.window_rope_base);
  if (!theta)
    return theta.error();
  auto out = rope;
  out.theta = static_cast<float>(*theta);
  out.factors.clear();
  out.scale = 1;
  if (!std::isfinite(out.theta) || out.theta <= 0)
    return metadata_.wrong(key("rope.freq_base_swa"), "is out of range");
  return out;
}

std::string rope_reader::key(std::string_view name) const {
  return fmt::format("{}.{}", family_.name, name);
}

result<void> rope_reader::base() {
  auto theta = metadata_.positive(key("rope.freq_base"), 10000.0);
  if (!theta)
    return theta.error();
  rope_.theta = static_cast<float>(*theta);
  if (!std::isfinite(rope_.theta) || rope_.theta <= 0)
    return metadata_.wrong(key("rope.freq_base"), "is out of range");
  // How rows are paired is a matter of the writer, not of the family alone.
  auto interleaved =
      metadata_.flag(weights::rope_interleaved_key, family_.rope_interleaved);
  if (!interleaved)
    return interleaved.error();
  rope_.interleaved = *interleaved;
  return {};
}

result<void> rope_reader::dimensions() {
  const auto name = key("rope.dimension_count");
  auto dims = metadata_.number(name, 1, model_.head_dim, model_.head_dim);
  if (!dims)
    return dims.error();
  rope_.dims = static_cast<std::int32_t>(*dims);
  if (rope_.dims % 2 != 0)
    return metadata_.wrong(name, "is odd: there are no pairs");
  if (rope_.interleaved && rope_.dims != model_.head_dim)
    return metadata_.wrong(name,
                           "differs from the heads' size: not supported "
                           "yet where pairs are neighbours",
                           errc::unsupported);
  return {};
}

result<void> rope_reader::scaling() {
  const auto name = key("rope.scaling.type");
  auto kind = metadata_.text(name, "none");
  if (!kind)
    return kind.error();
  const bool has_lists = file_.find_tensor(long_factors) != nullptr;
  const bool has_table = file_.find_tensor(family_.rope_factors) != nullptr;
  if (has_lists && !has_table && (*kind == "none" || *kind == "longrope"))
    return longrope();
  if (!has_lists && *kind == "none")
    return has_table ? table() : result<void>{};
  if (!has_lists && !has_table && *kind == "linear")
    return linear();
  if (!has_lists && !has_table && *kind == "yarn")
    return yarn();
  return metadata_.wrong(name,
                         "names a scaling that is not supported yet (" +
                             weights::printable(*kind) + ")",
                         errc::unsupported);
}

result<void> rope_reader::linear() {
  auto factor = metadata_.positive(key("rope.scaling.factor"));
  if (!factor)
    return factor.error();
  rope_.factors.assign(rope_.dims / 2, static_cast<float>(*factor));
  return finite("rope.scaling.factor");
}

result<void> rope_reader::table() {
  auto values = tensors_.positive_values(family_.rope_factors, rope_.dims / 2);
  if (!values)
    return values.error();
  rope_.factors = std::move(*values);
  return {};
}

result<void> rope_reader::yarn() {
  yarn_scaling scaling;
  struct field {
    double& out;
    std::string_view name;
    std::optional<double> otherwise;
  };
  double stretch = 1;
  for (auto [out, name, otherwise] : std::initializer_list<field>{
           {scaling.factor, "rope.scaling.factor", {}},
           {scaling.fast, "rope.scaling.yarn_beta_fast", scaling.fast},
           {scaling.slow, "rope.scaling.yarn_beta_slow", scaling.slow},
           {stretch, "rope.scaling.attn_factor", 1.0}}) {
    auto value = metadata_.positive(key(name), otherwise);
    if (!value)
      return value.error();
    out = *value;
  }
  auto context = metadata_.number(key("rope.scaling.original_context_length"),
                                  1, context_max, model_.context_length);
  if (!context)
    return context.error();
  scaling.context = static_cast<double>(*context);
  rope_.factors = yarn_factors(scaling, rope_.theta, rope_.dims);
  const auto grown = std::max(1.0, scaling.factor);
  rope_.scale =
      static_cast<float>(stretch * (1 + 0.1 * sampling::fixed_log(grown)));
  return finite("rope.scaling.factor");
}

result<void> rope_reader::longrope() {
  auto original = metadata_.number(key("rope.scaling.original_context_length"),
                                   1, context_max);
  auto scale = metadata_.positive(key("rope.scaling.attn_factor"), 1.0);
  if (!original || !scale)
    return !original ? original.error() : scale.error();
  const bool is_long = model_.context_length > *original;
  took_short_factors_ = is_long && model_.longest <= *original;
  auto listed = tensors_.positive_values(long_factors, rope_.dims / 2);
  auto brief = tensors_.positive_values(short_factors, rope_.dims / 2);
  if (!listed || !brief)
    return !listed ? listed.error() : brief.error();
  rope_.factors = is_long && !took_short_factors_ ? *listed : *brief;
  rope_.scale = static_cast<float>(*scale);
  return finite("rope.scaling.attn_factor");
}

result<void> rope_reader::finite(std::string_view name) const {
  const auto fine = [](float value) {
    return std::isfinite(value) && value > 0;
  };
  if (fine(rope_.scale) &&
      std::all_of(rope_.factors.begin(), rope_.factors.end(), fine))
    return {};
  return metadata_.wrong(key(name), "gives a factor that is not a finite "
                                    "number above 0");
}

} // namespace troupe::model
