#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace troupe::node_agent {

/// What the control groups of this process, or their parents, let it use;
/// nothing where there is no limit.
struct cgroup_limits {
  std::optional<double> cpus;
  std::optional<std::uint64_t> memory_bytes;
};

/// Reads versions 1 and 2, as far as they can be read. `root` holds `proc` and
/// `sys`; another than "/" is for tests.
cgroup_limits read_cgroup_limits(const std::filesystem::path& root = "/");

} // namespace troupe::node_agent
