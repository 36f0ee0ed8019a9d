#include "actors/node_agent/cgroup.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

namespace troupe::node_agent {

namespace {

namespace fs = std::filesystem;

/// Without a limit, version 1 says "almost all of 64 bits".
constexpr std::uint64_t memory_unlimited = std::uint64_t{1} << 60;

template <class T>
void lower(std::optional<T>& limit, T found) {
  limit = limit ? std::min(*limit, found) : found;
}

/// Version 2: "200000 100000" or "max 100000".
void read_cpu_max(const fs::path& directory, cgroup_limits& out) {
  std::ifstream file{directory / "cpu.max"};
  double quota = 0;
  double period = 0;
  if (file >> quota >> period && quota > 0 && period > 0)
    lower(out.cpus, quota / period);
}

/// Version 1; a quota of -1 is none.
void read_cfs_quota(const fs::path& directory, cgroup_limits& out) {
  std::ifstream quota_file{directory / "cpu.cfs_quota_us"};
  std::ifstream period_file{directory / "cpu.cfs_period_us"};
  double quota = 0;
  double period = 0;
  if (quota_file >> quota && period_file >> period && quota > 0 && period > 0)
    lower(out.cpus, quota / period);
}

/// "max" and what is no number are no limit.
void read_memory_limit(const fs::path& path, cgroup_limits& out) {
  std::ifstream file{path};
  std::uint64_t bytes = 0;
  if (file >> bytes && bytes > 0 && bytes < memory_unlimited)
    lower(out.memory_bytes, bytes);
}

/// Calls `read` for the group's directory and all above it, up to `mount`. In a
/// container the group's path may be the host's and not be there; then the
/// mount itself is the container's group.
template <class Read>
void walk_up(const fs::path& mount, const std::string& group, Read read) {
  fs::path below = fs::path{group}.relative_path().lexically_normal();
  if (below.empty() || *below.begin() == "..")
    below = ".";
  for (; below.has_relative_path() && below != "."; below = below.parent_path())
    read(mount / below);
  read(mount);
}

bool names(const std::string& controllers, std::string_view wanted) {
  std::istringstream list{controllers};
  for (std::string one; std::getline(list, one, ',');)
    if (one == wanted)
      return true;
  return false;
}

} // namespace

cgroup_limits read_cgroup_limits(const fs::path& root) {
  cgroup_limits out;
  auto mounts = root / "sys/fs/cgroup";
  std::ifstream groups{root / "proc/self/cgroup"};
  // "0::/group" is version 2; "4:cpu,cpuacct:/group" is version 1.
  for (std::string line; std::getline(groups, line);) {
    auto first = line.find(':');
    auto second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos)
      continue;
    auto controllers = line.substr(first + 1, second - first - 1);
    auto group = line.substr(second + 1);
    if (controllers.empty())
      walk_up(mounts, group, [&](const fs::path& directory) {
        read_cpu_max(directory, out);
        read_memory_limit(directory / "memory.max", out);
      });
    if (names(controllers, "cpu"))
      walk_up(mounts / "cpu", group, [&](const fs::path& directory) {
        read_cfs_quota(directory, out);
      });
    if (names(controllers, "memory"))
      walk_up(mounts / "memory", group, [&](const fs::path& directory) {
        read_memory_limit(directory / "memory.limit_in_bytes", out);
      });
  }
  return out;
}

} // namespace troupe::node_agent
