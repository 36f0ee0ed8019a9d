#pragma once

#include "engine/codec/error.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace troupe::node {

/// What others on this machine may know of a running node; it stands in the
/// file node.json of its state directory while it lives.
struct node_facts {
  std::int64_t pid = 0;
  std::string node;
  std::string role;    ///< "head" or "worker"
  std::string address; ///< where other nodes reach it
  std::string http_host;
  std::string admin_host;
  std::uint16_t http_port = 0; ///< 0 = its router does not listen
  std::uint16_t admin_port = 0;
  std::uint16_t join_port = 0; ///< of a head that workers can join
  std::uint16_t cluster_port = 0;

  bool operator==(const node_facts&) const = default;
};

std::string to_json(const node_facts&);

/// The node.json of a state directory. Errors: there is none, or it is damaged.
result<node_facts> read_facts(const std::filesystem::path& state_dir);

/// Writes node.json whole or not at all.
result<void> write_facts(const std::filesystem::path& state_dir,
                         const node_facts&);
void remove_facts(const std::filesystem::path& state_dir);

} // namespace troupe::node
