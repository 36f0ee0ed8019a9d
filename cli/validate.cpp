#include "cli/commands.hpp"
#include "cli/load_config.hpp"

#include <fmt/format.h>

namespace troupe::cli {

int validate(const std::filesystem::path& file) {
  auto loaded = load_config(file);
  for (const auto& finding : loaded.findings.all())
    fmt::print(stderr, "{}\n", to_string(finding));
  if (auto errors = loaded.findings.error_count(); errors != 0) {
    fmt::print(stderr, "{} error{}\n", errors, errors == 1 ? "" : "s");
    return 2;
  }
  std::size_t models = 0;
  for (const auto& application : loaded.values.applications) {
    models += application.models.size();
    for (const auto& model : application.models)
      fmt::print("{} {}: {} replica{} of {}\n", application.name,
                 model.model_id, model.deployment.replicas(),
                 model.deployment.replicas() == 1 ? "" : "s",
                 model.model_source);
  }
  fmt::print("{} is valid: {} application{}, {} model{}\n", file.string(),
             loaded.values.applications.size(),
             loaded.values.applications.size() == 1 ? "" : "s", models,
             models == 1 ? "" : "s");
  return 0;
}

} // namespace troupe::cli
