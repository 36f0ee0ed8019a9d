#include "engine/model/hugging_face/config_json.hpp"

#include "engine/model/architecture.hpp"
#include "engine/model/hugging_face/json_fields.hpp"
#include "engine/model/hugging_face/rope_json.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace troupe::model::hugging_face {

namespace {

namespace dom = simdjson::dom;
using weights::printable;

constexpr std::int64_t whole_max = 2147483647;

/// Reads the file step by step; each step returns an error or nothing.
class config_reader {
public:
  explicit config_reader(const json_fields& fields) : fields_(fields) {
    // nop
  }

  result<model_json> run() {
    using step = result<void> (config_reader::*)();
    for (step one :
         {&config_reader::family_row, &config_reader::no_code,
          &config_reader::quantisation, &config_reader::demands,
          &config_reader::keys, &config_reader::rope, &config_reader::windows,
          &config_reader::layers_without_rope, &config_reader::tied,
          &config_reader::positions, &config_reader::scores,
          &config_reader::lengths})
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
    const auto rows = find_families(*type);
    if (rows.empty())
      return fields_.wrong("model_type",
                           "names a family that is not supported yet (" +
                               printable(*type) + ")",
                           errc::unsupported);
    return class_row(rows);
  }

  result<void> no_code() {
    if (!fields_.has("auto_map") || out_.of->published_with_code)
      return {};
    return fields_.wrong("auto_map",
                         "says that the model comes with code of its own, "
                         "which is never run",
                         errc::unsupported);
  }

  /// The row of the class that the file names first.
  result<void> class_row(const std::vector<const family*>& rows) {
    out_.of = rows.front();
    if (!fields_.has("architectures"))
      return {};
    dom::array names;
    std::string_view name;
    if (fields_.at("architectures").get(names) || names.at(0).get(name))
      return fields_.wrong("architectures", "is not a list of names");
    std::vector<std::string_view> known;
    for (const auto* row : rows) {
      out_.headless = is_headless(*row, name);
      if (row->class_name == name || out_.headless) {
        out_.of = row;
        return {};
      }
      known.push_back(row->class_name);
    }
    return fields_.wrong("architectures",
                         fmt::format("names '{}', not {}: not supported yet",
                                     printable(name), fmt::join(known, " or ")),
                         errc::unsupported);
  }

  static bool is_headless(const family& row, std::string_view name) {
    constexpr std::string_view head = "ForCausalLM", none = "Model";
    auto stem = row.class_name;
    if (!stem.ends_with(head) || !name.ends_with(none))
      return false;
    stem.remove_suffix(head.size());
    name.remove_suffix(none.size());
    return stem == name;
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
    case value_kind::inverse_root: {
      auto value = fields_.positive(row.from);
      if (value)
        value = 1 / std::sqrt(*value);
      return put(row, std::move(value));
    }
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
    else if (row.kind != value_kind::flag)
      put(own(row.to), *row.otherwise);
    else
      put(own(row.to), *row.otherwise != 0);
    return {};
  }

  const architecture& computed() const {
    return *find_architecture(out_.of->architecture);
  }

  result<void> rope() {
    if (computed().no_rope_every == 1)
      return {};
    auto head = head_dim();
    return head ? rope_json{fields_, *head, out_}.run() : head.error();
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

  /// Which layers see a window.
  result<void> windows() {
    if (!fields_.has("layer_types") || !computed().window_period)
      return {};
    auto types = fields_.texts("layer_types");
    if (!types)
      return types.error();
    std::vector<bool> windowed;
    for (const auto& type : *types) {
      if (type != "sliding_attention" && type != "full_attention")
        return fields_.wrong(
            "layer_types",
            fmt::format("names '{}': not supported yet", printable(type)),
            errc::unsupported);
      windowed.push_back(type == "sliding_attention");
    }
    put(own("attention.sliding_window_pattern"), std::move(windowed));
    return {};
  }

  /// Which layers have no rope: the architecture's row knows one pattern.
  result<void> layers_without_rope() {
    const auto every = computed().no_rope_every;
    if (every < 2 || !fields_.has("no_rope_layers"))
      return {};
    auto has_rope = fields_.wholes("no_rope_layers");
    if (!has_rope)
      return has_rope.error();
    for (std::size_t layer = 0; layer < has_rope->size(); ++layer)
      if (((*has_rope)[layer] == 0) != ((layer + 1) % every == 0))
        return fields_.wrong(
            "no_rope_layers",
            fmt::format("is not every {}th: not supported yet", every),
            errc::unsupported);
    return {};
  }

  result<void> tied() {
    auto said = fields_.flag("tie_word_embeddings", out_.of->tied);
    if (!said)
      return said.error();
    out_.tied = *said || computed().encoder || out_.headless;
    return {};
  }

  // -- encoders ---------------------------------------------------------------

  result<void> positions() {
    if (!out_.of->cut_positions)
      return {};
    auto padding = fields_.has("pad_token_id")
                       ? fields_.whole("pad_token_id", 0, whole_max - 1)
                       : result<std::int64_t>{1};
    auto all = fields_.whole("max_position_embeddings", 1, whole_max);
    if (!padding || !all)
      return !padding ? padding.error() : all.error();
    out_.unused_positions = *padding + 1;
    if (*all <= out_.unused_positions)
      return fields_.wrong("max_position_embeddings",
                           fmt::format("is {}, which leaves none after the "
                                       "padding's",
                                       *all));
    put(own("context_length"), *all - out_.unused_positions);
    return {};
  }

  result<void> scores() {
    if (!out_.of->scores)
      return {};
    if (auto done = one_label(); !done)
      return done;
    put(own("pooling_type"), std::int64_t{4});
    put(weights::score_of_mean_key,
        fields_.has("classifier_pooling") &&
            spelled(fields_.at("classifier_pooling")) == "mean");
    auto activation = score_activation();
    if (!activation)
      return activation.error();
    put(weights::sigmoid_key, *activation == "Sigmoid");
    return {};
  }

  /// transformers' default is two.
  result<void> one_label() const {
    auto count = result<std::int64_t>{2};
    auto key = fields_.has("num_labels") ? "num_labels" : "id2label";
    if (fields_.has("id2label")) {
      auto names = fields_.object("id2label");
      if (!names)
        return names.error();
      count = static_cast<std::int64_t>(names->keys().size());
    } else if (fields_.has("num_labels")) {
      count = fields_.whole("num_labels", 0, whole_max);
    }
    if (!count)
      return count.error();
    if (*count != 1)
      return fields_.wrong(key,
                           fmt::format("says {} labels, not one: not supported "
                                       "yet",
                                       *count),
                           errc::unsupported);
    return {};
  }

  /// What sentence-transformers puts behind the head: a class of torch.
  result<std::string> score_activation() const {
    constexpr std::string_view older = "sbert_ce_default_activation_function";
    auto name = fields_.text(older, "torch.nn.modules.activation.Sigmoid");
    if (name && fields_.has("sentence_transformers")) {
      auto inner = fields_.object("sentence_transformers");
      name = inner ? inner->text("activation_fn", *name) : inner.error();
    }
    if (!name)
      return name;
    auto last = name->substr(name->rfind('.') + 1);
    if (name->starts_with("torch.nn.") &&
        (last == "Sigmoid" || last == "Identity"))
      return last;
    return fields_.wrong(fields_.has(older) ? older : "activation_fn",
                         "is '" + printable(*name) +
                             "', not Sigmoid or Identity: not supported yet",
                         errc::unsupported);
  }

  /// To what lengths an embedding may be cut, in vLLM's words.
  result<void> lengths() {
    auto any = fields_.flag("is_matryoshka", false);
    if (!any)
      return any.error();
    if (*any)
      put(weights::matryoshka_key, *any);
    if (!fields_.has("matryoshka_dimensions"))
      return {};
    auto some = fields_.wholes("matryoshka_dimensions");
    if (!some)
      return some.error();
    put(weights::matryoshka_lengths_key, std::move(*some));
    return {};
  }

  const json_fields& fields_;
  model_json out_;
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
