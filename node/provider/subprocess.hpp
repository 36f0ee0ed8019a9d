#pragma once

#include "engine/codec/error.hpp"
#include "node/provider/node_provider.hpp"

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace troupe::node {

/// What a node of a type runs.
struct worker_command {
  std::filesystem::path executable;
  /// Behind them come `--node-name NODE --state-dir DIRECTORY`.
  std::vector<std::string> arguments;
};

struct subprocess_options {
  /// The provider's own; made, with mode 0700. Each node has a folder in it.
  std::filesystem::path directory;
  std::map<std::string, worker_command> types;
  /// The environment of all nodes, "NAME=VALUE" each.
  std::vector<std::string> inherited;
  /// What a new node's environment has beside that: its token. Called on the
  /// provider's thread.
  std::function<result<std::vector<std::pair<std::string, std::string>>>()>
      environment;
  /// From SIGTERM to SIGKILL.
  std::chrono::milliseconds end_max{45'000};
};

/// Nodes that are processes of this machine. Each is a session of its own: it
/// lives on when this process dies. Which process a node is stands in its
/// folder (process_mark) before it runs anything; so that it is found again, or
/// never was. So does that it was told to end. When it is gone its folder goes,
/// with its log; the log's last line is part of the reason.
std::unique_ptr<node_provider> make_subprocess_provider(subprocess_options);

} // namespace troupe::node
