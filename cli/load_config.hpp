#pragma once

#include "config/serve_config.hpp"

#include <filesystem>

namespace troupe::cli {

/// Reads a file (config::load) and compiles the chat templates that it gives,
/// so that a broken one is an error with its place in the file.
config::loaded_config load_config(const std::filesystem::path& file,
                                  config::purpose = config::purpose::run);

} // namespace troupe::cli
