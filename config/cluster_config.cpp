#include "config/cluster_config.hpp"

#include "config/schema.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <optional>

namespace troupe::config {

namespace {

constexpr std::size_t node_types_max = 100;
constexpr double workers_max = 10'000;
constexpr std::size_t type_name_bytes_max = 100;

/// A node's name begins with that of its type, and stands in its certificate.
bool is_type_name(const std::string& name) {
  auto fits = [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
           (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '-';
  };
  return !name.empty() && name.size() <= type_name_bytes_max &&
         std::all_of(name.begin(), name.end(), fits);
}

void read_provider(const located& value) {
  if (!value.present()) {
    value.error("is required: provider.type says who brings nodes; "
                "supported: subprocess");
    return;
  }
  map_reader in{value};
  auto type = in.take("type");
  if (!type.present()) {
    type.error("is required; supported: subprocess");
    return;
  }
  if (auto name = read_text(type); name && *name != "subprocess")
    type.error(fmt::format("\"{}\" is not supported yet; supported: subprocess "
                           "(workers as processes of the head's machine)",
                           *name));
  in.refuse({"region", "availability_zone", "cache_stopped_nodes",
             "use_internal_ips", "head_ip", "worker_ips", "security_group",
             "project_id", "location", "resource_group"});
}

std::filesystem::path read_node_config(const located& value) {
  std::filesystem::path out;
  if (!value.present())
    return out;
  map_reader in{value};
  if (auto executable = in.text("executable"))
    out = beside(value.file, *executable);
  return out;
}

std::map<std::string, double> read_resources(const located& value) {
  std::map<std::string, double> out;
  if (!value.present())
    return out;
  map_reader in{value};
  std::vector<std::string> names;
  if (value.node.IsMap())
    for (const auto& entry : value.node)
      if (entry.first.IsScalar())
        names.push_back(entry.first.Scalar());
  // The reader keeps views of the names that it was asked for.
  for (const auto& name : names)
    if (auto amount = read_resource(name, in.take(name)))
      out[name] = *amount;
  return out;
}

std::uint32_t workers_or(map_reader& in, std::string_view key,
                         std::uint32_t otherwise) {
  return static_cast<std::uint32_t>(
      in.integer(key, {0, workers_max}).value_or(otherwise));
}

node_type_config read_node_type(std::string name, const located& value,
                                std::uint32_t max_workers) {
  node_type_config out;
  out.name = std::move(name);
  if (!is_type_name(out.name))
    value.error(fmt::format("a node type's name must be 1 to {} letters, "
                            "digits, \".\", \"_\" and \"-\"",
                            type_name_bytes_max));
  map_reader in{value};
  out.resources = read_resources(in.take("resources"));
  out.min_workers = workers_or(in, "min_workers", 0);
  auto most = in.take("max_workers");
  out.max_workers = max_workers;
  if (most.present())
    out.max_workers = static_cast<std::uint32_t>(
        read_integer(most, {0, workers_max}).value_or(max_workers));
  if (out.min_workers > out.max_workers)
    in.take("min_workers")
        .error(fmt::format("{}: more than max_workers, {}", out.min_workers,
                           out.max_workers));
  out.executable = read_node_config(in.take("node_config"));
  in.refuse({"labels", "docker", "worker_setup_commands"});
  return out;
}

void read_node_types(const located& value, cluster_config& out) {
  if (!value.present() || !value.node.IsMap() || value.node.size() == 0) {
    value.error("must be a map of node types, at least one");
    return;
  }
  if (value.node.size() > node_types_max)
    value.error(fmt::format("more than {} node types", node_types_max));
  std::vector<std::string> names;
  for (const auto& entry : value.node)
    if (entry.first.IsScalar() && names.size() < node_types_max)
      names.push_back(entry.first.Scalar());
  map_reader in{value};
  for (const auto& name : names) {
    // As Ray has it, the head's type brings no workers unless it says so.
    auto otherwise = name == out.head_node_type ? 0 : out.max_workers;
    out.node_types.push_back(read_node_type(name, in.take(name), otherwise));
  }
}

void read_cluster(const located& document, cluster_config& out) {
  map_reader in{document};
  out.cluster_name = in.text("cluster_name").value_or(out.cluster_name);
  out.max_workers = workers_or(in, "max_workers", out.max_workers);
  out.upscaling_speed =
      in.number("upscaling_speed", {0, 1000}).value_or(out.upscaling_speed);
  out.idle_timeout_minutes = in.number("idle_timeout_minutes", {0, 1e6})
                                 .value_or(out.idle_timeout_minutes);
  read_provider(in.take("provider"));
  auto head = in.take("head_node_type");
  if (head.present())
    out.head_node_type = read_text(head).value_or("");
  read_node_types(in.take("available_node_types"), out);
  auto is_head = [&](const auto& type) {
    return type.name == out.head_node_type;
  };
  if (!out.head_node_type.empty() &&
      std::none_of(out.node_types.begin(), out.node_types.end(), is_head))
    head.error(fmt::format("\"{}\" is none of available_node_types",
                           out.head_node_type));
  std::uint64_t least = 0;
  for (const auto& type : out.node_types)
    least += type.min_workers;
  if (least > out.max_workers)
    document.note(fmt::format("the min_workers of all types are {}, "
                              "max_workers is {}: no more are kept",
                              least, out.max_workers));
  in.refuse({"docker", "auth", "file_mounts", "cluster_synced_files",
             "rsync_exclude", "rsync_filter", "initialization_commands",
             "setup_commands", "head_setup_commands", "worker_setup_commands",
             "head_start_ray_commands", "worker_start_ray_commands",
             "worker_nodes", "head_node", "min_workers", "initial_workers",
             "autoscaling_mode", "target_utilization_fraction"});
}

} // namespace

loaded_cluster load_cluster(const std::filesystem::path& file) {
  loaded_cluster out;
  auto document = open_yaml(file, out.findings);
  if (!document.present())
    return out;
  try {
    read_cluster(document, out.values);
  } catch (const YAML::Exception& e) {
    out.findings.error({document.file, e.mark.line + 1, e.mark.column + 1}, "",
                       e.msg);
  }
  out.findings.sort();
  return out;
}

bool is_cluster_file(const std::filesystem::path& file) {
  diagnostics ignored;
  auto document = open_yaml(file, ignored);
  if (!document.present() || !document.node.IsMap())
    return false;
  const auto& map = std::as_const(document.node);
  return !map["applications"].IsDefined() &&
         (map["available_node_types"].IsDefined() ||
          map["provider"].IsDefined());
}

} // namespace troupe::config
