#pragma once

#include "config/diagnostics.hpp"

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace troupe::config {

/// An entry of `available_node_types`.
struct node_type_config {
  std::string name;
  std::map<std::string, double> resources; ///< what is not given is found
  std::uint32_t min_workers = 0;
  std::uint32_t max_workers = 0;
  /// `node_config.executable`: what a node of it runs; empty = this program.
  std::filesystem::path executable;
};

/// A cluster file, as Ray's autoscaler takes it.
struct cluster_config {
  std::string cluster_name = "default";
  std::uint32_t max_workers = 2;
  double upscaling_speed = 1;
  double idle_timeout_minutes = 5;
  std::string head_node_type; ///< empty = the head is of no type
  std::vector<node_type_config> node_types;
};

/// What a file says, and everything that is wrong with it.
struct loaded_cluster {
  cluster_config values; ///< meaningless if findings has errors
  diagnostics findings;
};

/// Reads a cluster file. All findings of the file are in the result; nothing is
/// thrown.
loaded_cluster load_cluster(const std::filesystem::path& file);

/// True if the file is one of a cluster, not of applications.
bool is_cluster_file(const std::filesystem::path& file);

} // namespace troupe::config
