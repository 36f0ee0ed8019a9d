#include "engine/model/hugging_face/config_json.hpp"

#include "engine/model/hugging_face/json_fields.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <numbers>

namespace troupe::model::hugging_face {

namespace {

namespace dom = simdjson::dom;
using weights::printable;

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

/// Reads the file step by step; each step returns an error or nothing.
class config_reader {
public:
  explicit config_reader(const json_fields& fields) : fields_(fields) {
    // nop
  }

  result<model_json> run() {
    using step = result<void> (config_reader::*)();
    for (step one : {&config_reader::family_row, &config_reader::no_code,
                     &config_reader::class_of, &config_reader::quantisation,
                     &config_reader::demands, &config_reader::keys,
                     &config_reader::rope, &config_reader::tied})
      if (auto done = (this->*one)(); !done)
        return done.error();
    put("general.architecture", std::string{out_.of->architecture});
    put(weights::rope_interleaved_key, false);
    if (out_.quantised.how != packing::none)
      put(weights::quantisation_key, out_.quantised.method);
    return std::move(out_);
  }

private:
  template <class T>
  void put(std::string_view key, T value) {
    out_.metadata[std::string{key}] = std::move(value);
  }

  std::string own(std::string_view key) const {
    return fmt::format("{}.{}", out_.of->architecture, key);
  }

  result<void> family_row() {
    auto type = fields_.text("model_type");
    if (!type)
      return type.error();
    out_.of = find_family(*type);
    if (!out_.of)
      return fields_.wrong("model_type",
                           "names a family that is not supported yet (" +
                               printable(*type) + ")",
                           errc::unsupported);
    return {};
  }

  result<void> no_code() {
    if (!fields_.has("auto_map") || out_.of->published_with_code)
      return {};
    return fields_.wrong("auto_map",
                         "says that the model comes with code of its own, "
                         "which is never run",
                         errc::unsupported);
  }

  result<void> class_of() {
    if (!fields_.has("architectures"))
      return {};
    dom::array names;
    std::string_view name;
    if (fields_.at("architectures").get(names) || names.at(0).get(name))
      return fields_.wrong("architectures", "is not a list of names");
    if (name != out_.of->class_name)
      return fields_.wrong("architectures",
                           fmt::format("names '{}', not {}: not supported yet",
                                       printable(name), out_.of->class_name),
                           errc::unsupported);
    return {};
  }

  result<void> quantisation() {
    for (auto key : {"quantization_config", "compression_config"}) {
      if (!fields_.has(key))
        continue;
      auto inner = fields_.object(key);
      auto read = inner ? read_quantization_config(*inner) : inner.error();
      if (!read)
        return read.error();
      out_.quantised = std::move(*read);
    }
    return {};
  }

  result<void> demands() {
    for (const auto& row : out_.of->demands) {
      if (!fields_.has(row.key))
        continue;
      auto said = spelled(fields_.at(row.key));
      const auto& allowed = row.allowed;
      if (std::find(allowed.begin(), allowed.end(), said) == allowed.end())
        return fields_.wrong(row.key,
                             fmt::format("is {}, not {}: not supported yet",
                                         printable(said),
                                         fmt::join(allowed, " or ")),
                             errc::unsupported);
    }
    return {};
  }

  static std::string spelled(dom::element value) {
    std::string_view text;
    return value.get(text) ? simdjson::to_string(value) : std::string{text};
  }

  result<void> keys() {
    for (const auto& row : out_.of->keys)
      if (auto done = key(row); !done)
        return done;
    for (const auto& row : common_keys())
      if (!has_own_row(row.from))
        if (auto done = key(row); !done)
          return done;
    return {};
  }

  bool has_own_row(std::string_view from) const {
    const auto& rows = out_.of->keys;
    return std::any_of(rows.begin(), rows.end(),
                       [&](const key_row& row) { return row.from == from; });
  }

  result<void> key(const key_row& row) {
    if (!fields_.has(row.from))
      return missing(row);
    switch (row.kind) {
    case value_kind::whole:
      return put(row, fields_.whole(row.from, row.required ? 1 : 0, whole_max));
    case value_kind::real:
      return put(row, fields_.real(row.from));
    case value_kind::flag:
      return put(row, fields_.flag(row.from));
    case value_kind::text:
      return put(row, fields_.text(row.from));
    }
    return {};
  }

  template <class T>
  result<void> put(const key_row& row, result<T> value) {
    if (!value)
      return value.error();
    put(own(row.to), std::move(*value));
    return {};
  }

  result<void> missing(const key_row& row) {
    if (row.required)
      return fields_.wrong(row.from, "is missing");
    if (!row.otherwise)
      return {};
    if (row.kind == value_kind::whole)
      put(own(row.to), static_cast<std::int64_t>(*row.otherwise));
    else if (row.kind == value_kind::real)
      put(own(row.to), *row.otherwise);
    else
      put(own(row.to), *row.otherwise != 0);
    return {};
  }

  /// Transformers 5 says all of rope in "rope_parameters", older ones the base
  /// in "rope_theta" and the rest in "rope_scaling".
  result<void> rope() {
    if (auto done = rope_dimensions(); !done)
      return done;
    for (auto key : {"rope_parameters", "rope_scaling"})
      if (fields_.has(key)) {
        auto inner = fields_.object(key);
        return inner ? rope_of(*inner) : inner.error();
      }
    return base_of(fields_);
  }

  result<void> rope_of(const json_fields& fields) {
    auto done = base_of(fields.has("rope_theta") ? fields : fields_);
    if (!done)
      return done;
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
    return fields.wrong(key,
                        fmt::format("names a scaling that is not supported "
                                    "yet ({})",
                                    printable(*type)),
                        errc::unsupported);
  }

  result<void> base_of(const json_fields& fields) {
    auto theta = fields.positive("rope_theta", 10000.0);
    if (!theta)
      return theta.error();
    theta_ = *theta;
    put(own("rope.freq_base"), *theta);
    return {};
  }

  result<void> rope_dimensions() {
    auto head = head_dim();
    auto share = fields_.positive("partial_rotary_factor", 1.0);
    if (!head || !share)
      return !head ? head.error() : share.error();
    if (*share > 1)
      return fields_.wrong("partial_rotary_factor", "is above 1");
    rope_dims_ = static_cast<std::int64_t>(static_cast<double>(*head) * *share);
    put(own("rope.dimension_count"), rope_dims_);
    return {};
  }

  result<std::int64_t> head_dim() const {
    if (fields_.has("head_dim"))
      return fields_.whole("head_dim", 1, whole_max);
    auto hidden = fields_.whole("hidden_size", 1, whole_max);
    auto heads = fields_.whole("num_attention_heads", 1, whole_max);
    if (!hidden || !heads)
      return !hidden ? hidden : heads;
    if (*hidden % *heads != 0)
      return fields_.wrong("num_attention_heads",
                           fmt::format("is {}, which does not divide the "
                                       "hidden_size of {}",
                                       *heads, *hidden));
    return *hidden / *heads;
  }

  result<void> linear(const json_fields& fields) {
    auto factor = fields.positive("factor");
    if (!factor)
      return factor.error();
    put(own("rope.scaling.type"), std::string{"linear"});
    put(own("rope.scaling.factor"), *factor);
    return {};
  }

  result<void> llama3(const json_fields& fields) {
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
    if (rope_dims_ > rope_dims_max)
      return fields_.wrong("head_dim", "is too large");
    for (std::int64_t i = 0; i + 1 < rope_dims_; i += 2) {
      auto exponent = static_cast<double>(i) / static_cast<double>(rope_dims_);
      auto wavelength = 2 * std::numbers::pi * std::pow(theta_, exponent);
      out_.rope_factors.push_back(scaling.stretch_of(wavelength));
    }
    return {};
  }

  result<void> tied() {
    auto said = fields_.flag("tie_word_embeddings", out_.of->tied);
    if (!said)
      return said.error();
    out_.tied = *said;
    return {};
  }

  static constexpr std::int64_t rope_dims_max = 1 << 16;

  const json_fields& fields_;
  model_json out_;
  double theta_ = 0;
  std::int64_t rope_dims_ = 0;
};

} // namespace

result<model_json> read_config_json(std::string_view text) {
  auto document = weights::json_document::parse(text, "config.json");
  if (!document)
    return document.error();
  json_fields fields{document->root(), "config.json: "};
  return config_reader{fields}.run();
}

} // namespace troupe::model::hugging_face
