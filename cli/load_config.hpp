#pragma once

#include "config/serve_config.hpp"

#include <filesystem>

namespace troupe::cli {

/// Reads a file (config::load) and compiles the chat templates that it gives,
/// so that a broken one is an error with its place in the file.
config::loaded_config load_config(const std::filesystem::path& file,
                                  config::purpose = config::purpose::run);

/// Prints what a file is refused for and how much that is, or, of one that is
/// fine, the notes. True if it is fine.
bool report(const config::diagnostics&);

} // namespace troupe::cli
