#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/hugging_face/config_json.hpp"
#include "engine/model/hugging_face/json_fields.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace troupe::model::hugging_face {

/// What config.json says of rope, in GGUF's words: puts metadata and vectors
/// into a model_json. Transformers 5 says it all in "rope_parameters", older
/// ones the base in "rope_theta" and the rest in "rope_scaling"; a family with
/// two ropes has an object for each kind of layer there, or
/// "rope_local_base_freq". Kinds: default, linear, llama3, yarn, longrope.
class rope_json {
public:
  rope_json(const json_fields& fields, std::int64_t head_dim, model_json& out)
      : fields_(fields), head_dim_(head_dim), out_(out) {
    // nop
  }

  result<void> run();

private:
  template <class T>
  void put(std::string_view key, T value);
  result<void> by_layer_type(const json_fields& ropes);
  result<void> rope_of(const json_fields& fields);
  result<void> base(const json_fields& fields);
  result<void> window_base(const json_fields& fields, std::string_view key);
  result<void> dimensions(const json_fields& fields);
  result<void> scaling(const json_fields& fields);
  result<void> linear(const json_fields& fields);
  result<void> llama3(const json_fields& fields);
  result<void> yarn(const json_fields& fields);
  result<void> longrope(const json_fields& fields);
  result<double> longrope_scale(const json_fields& fields,
                                double context) const;
  result<std::int64_t> first_context(const json_fields& fields) const;

  const json_fields& fields_;
  const std::int64_t head_dim_;
  model_json& out_;
  double theta_ = 0;
  std::int64_t dims_ = 0;
};

} // namespace troupe::model::hugging_face
