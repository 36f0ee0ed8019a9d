#include "engine/environment.hpp"

namespace troupe::engine {

download::environment environment_of(const options& o) {
  return [&o](const char* name) {
    for (const auto& [given, value] : o.environment)
      if (given == name)
        return value;
    return download::process_environment(name);
  };
}

std::filesystem::path cache_folder(const options& o) {
  const auto of = environment_of(o);
  std::filesystem::path out = of("TROUPE_CACHE");
  if (out.empty() && !of("XDG_CACHE_HOME").empty())
    out = std::filesystem::path{of("XDG_CACHE_HOME")} / "troupe";
  if (out.empty() && !of("HOME").empty())
    out = std::filesystem::path{of("HOME")} / ".cache" / "troupe";
  return out;
}

} // namespace troupe::engine
