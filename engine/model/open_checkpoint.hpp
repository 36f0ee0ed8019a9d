#pragma once

#include "engine/weights/checkpoint.hpp"

#include <filesystem>
#include <memory>

namespace troupe::model {

/// Opens what `resolve_model_source` gave: a GGUF file or a directory of
/// Hugging Face's.
result<std::unique_ptr<weights::checkpoint>>
open_checkpoint(const std::filesystem::path& source);

} // namespace troupe::model
