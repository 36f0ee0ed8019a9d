#pragma once

#include "engine/codec/error.hpp"

#include <filesystem>

namespace troupe::model {

/// What `path` means: a .gguf file, itself or the only one in that directory
/// (of a model split over several the first), or a directory with config.json
/// and safetensors. Everything else is refused by name: no such path, none or
/// several to choose from, a single safetensors file, pickled weights.
result<std::filesystem::path>
resolve_model_source(const std::filesystem::path& path);

} // namespace troupe::model
