#pragma once

#include "engine/codec/error.hpp"

#include <filesystem>

namespace troupe::model {

/// The model file that `path` means: itself if it is a .gguf file, or the one
/// .gguf file in that directory (of one model split over several, the first).
/// Everything else is refused by name: no such path, none or several files to
/// choose from, safetensors (not supported yet).
result<std::filesystem::path>
resolve_model_source(const std::filesystem::path& path);

} // namespace troupe::model
