#pragma once

#include "engine/model/hugging_face/directory.hpp"
#include "engine/weights/checkpoint.hpp"

#include <filesystem>
#include <memory>

namespace troupe::model {

/// Opens what `resolve_model_source` gave: a GGUF file or a directory of
/// Hugging Face's, whose e4m3 becomes what `how` says.
result<std::unique_ptr<weights::checkpoint>> open_checkpoint(
    const std::filesystem::path& source,
    hugging_face::e4m3_matrices how = hugging_face::e4m3_matrices::as_f16);

} // namespace troupe::model
