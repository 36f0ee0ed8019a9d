#pragma once

#include "engine/weights/checkpoint.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>

namespace troupe::model::hugging_face {

/// What matrices in E4M3 become whose scales are of an output, of all, or of
/// squares of ops::scale_cols.
enum class e4m3_matrices : std::uint8_t {
  as_f16, ///< as all others in E4M3
  kept,   ///< e4m3, for GPUs; but for those that are looked up, not multiplied
};

/// Opens a directory as transformers' save_pretrained writes it: config.json
/// and safetensors, sharded or not. Matrices of F32, F16 or BF16 stay where the
/// mapped files have them, vectors (norms, biases) become F32, quantised
/// modules (quantization_config.hpp) what packed_matrix.hpp says. Tensors that
/// stand in no row of the family are refused by name. No code is loaded and no
/// pickle is read.
result<std::unique_ptr<weights::checkpoint>>
open_directory(const std::filesystem::path& path,
               e4m3_matrices how = e4m3_matrices::as_f16);

} // namespace troupe::model::hugging_face
