#pragma once

#include "engine/codec/error.hpp"
#include "engine/model/hugging_face/json_fields.hpp"

#include <cstdint>
#include <string>

namespace troupe::model::hugging_face {

/// How a checkpoint's quantised modules are stored.
enum class packing : std::uint8_t {
  none,
  awq,
  gptq,
  gptq_v2,
  scaled, ///< eight bits (I8, F8_E4M3) beside their scales
};

/// What "quantization_config" says.
struct quantization {
  packing how = packing::none;
  std::string method; ///< "quant_method", as in the file: "awq"; empty = none
  std::int64_t block =
      0; ///< scaled: side of the squares with a scale; 0 = rows
};

/// Reads the object. Known: AWQ (4 bit, "gemm"), GPTQ (4 bit), compressed-
/// tensors (int8 and float8 weights, symmetric, by channel or by tensor) and
/// fp8 (E4M3). Everything else is refused by name. Activations are rounded as
/// those of any quantised weight here, so what the file says of them, and of
/// the way the weights were found, is not read.
result<quantization> read_quantization_config(const json_fields& fields);

} // namespace troupe::model::hugging_face
