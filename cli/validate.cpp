#include "cli/commands.hpp"
#include "cli/load_config.hpp"
#include "config/cluster_config.hpp"

#include <fmt/format.h>

namespace troupe::cli {

namespace {

int validate_cluster(const std::filesystem::path& file) {
  auto loaded = config::load_cluster(file);
  if (!report(loaded.findings))
    return 2;
  for (const auto& type : loaded.values.node_types)
    fmt::print("{}: {} to {} workers\n", type.name, type.min_workers,
               type.max_workers);
  fmt::print("{} is valid: the cluster {} of at most {} workers\n",
             file.string(), loaded.values.cluster_name,
             loaded.values.max_workers);
  return 0;
}

} // namespace

int validate(const std::filesystem::path& file) {
  if (config::is_cluster_file(file))
    return validate_cluster(file);
  auto loaded = load_config(file);
  if (!report(loaded.findings))
    return 2;
  std::size_t models = 0;
  for (const auto& application : loaded.values.applications) {
    models += application.models.size();
    for (const auto& model : application.models)
      fmt::print("{} {}: {} replica{} of {}\n", application.name,
                 model.model_id, model.deployment.replicas(),
                 model.deployment.replicas() == 1 ? "" : "s",
                 model.model_source);
  }
  fmt::print(
      "{0} is valid: {1} application{2}, {3} model{4} (`troupe plan {0}` "
      "asks the models' own files too)\n",
      file.string(), loaded.values.applications.size(),
      loaded.values.applications.size() == 1 ? "" : "s", models,
      models == 1 ? "" : "s");
  return 0;
}

} // namespace troupe::cli
