#pragma once

#include "engine/engine.hpp"
#include "engine/weights/download/fetch_settings.hpp"

#include <filesystem>

namespace troupe::engine {

/// Variables of the process, where the options have none in their place.
download::environment environment_of(const options& o);

/// What this process keeps of its own on this machine: TROUPE_CACHE, else
/// troupe in XDG_CACHE_HOME or ~/.cache; empty if nothing says where that is.
std::filesystem::path cache_folder(const options& o);

} // namespace troupe::engine
