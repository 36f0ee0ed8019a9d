#pragma once

#include "engine/weights/checkpoint.hpp"

#include <filesystem>
#include <memory>

namespace troupe::model::hugging_face {

/// Opens a directory as transformers' save_pretrained writes it: config.json
/// and safetensors, sharded or not. Matrices of F32, F16 or BF16 stay where the
/// mapped files have them, vectors (norms, biases) become F32, quantised
/// modules (quantization_config.hpp) what packed_matrix.hpp says. Tensors that
/// stand in no row of the family are refused by name. No code is loaded and no
/// pickle is read.
result<std::unique_ptr<weights::checkpoint>>
open_directory(const std::filesystem::path& path);

} // namespace troupe::model::hugging_face
