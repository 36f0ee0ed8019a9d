#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/hugging_face/family.hpp"
#include "engine/model/hugging_face/quantization_config.hpp"
#include "engine/weights/checkpoint.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::model::hugging_face {

using metadata_map =
    std::map<std::string, weights::metadata_value, std::less<>>;

/// What a config.json says, in GGUF's words.
struct model_json {
  const family* of = nullptr;
  metadata_map metadata;
  /// Tensors that GGUF has and safetensors files do not: rope's factors.
  std::map<std::string, std::vector<float>> vectors;
  bool tied = false; ///< the output layer is the embedding, or there is none
  /// The class lacks an output layer ("Qwen3Model" of "Qwen3ForCausalLM").
  bool headless = false;
  /// Rows at the front of the table of positions that mean nothing.
  std::int64_t unused_positions = 0;
  quantization quantised;
};

/// Translates by the table (family.hpp). Refused by name: families that are not
/// in it, classes other than the family's, models with code of their own
/// (auto_map; no code is ever loaded), rope scalings that rope_json.hpp does
/// not know, values of another type than the key's. Whether the numbers make a
/// model is for read_model_config to say.
result<model_json> read_config_json(std::string_view text);

} // namespace troupe::model::hugging_face
