#pragma once

#include "actors/node_agent/supervisor.hpp"
#include "engine/codec/tagged.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace troupe::node_agent {

/// What to run for a replica: one process, or several that end together.
struct process_plan {
  std::filesystem::path executable;
  std::vector<std::string> arguments; ///< without the program's name
  /// One per process, written to its lifeline (launch_record.hpp) behind its
  /// length.
  std::vector<codec::bytes> launches;
  /// What each may take of memory of its own (RLIMIT_DATA: mapped files do not
  /// count); past it, allocations fail. 0 = no limit.
  std::uint64_t memory_bytes = 0;
};

/// Replicas' processes of the node, known by the incarnation of their start.
/// When the first of several ends, or another one badly, all others are killed.
/// Their end is
/// bound to that of this process: by the lifeline, and by the parent-death
/// signal, which belongs to the thread that starts them and so to the host.
class process_host {
public:
  /// Called on the host's thread; quick.
  struct events {
    /// All processes; told is the first one's id.
    std::function<void(std::uint64_t incarnation, std::int64_t pid)> spawned;
    /// Exactly once per `spawn`, when no process is left: how the one ended
    /// that made the others end.
    std::function<void(std::uint64_t incarnation, process_end)> ended;
  };

  /// Kills what still runs and waits for it.
  virtual ~process_host() = default;

  /// Starts processes, each in a process group of its own (Ctrl-C is for the
  /// parent alone), without any other open file of this process but standard
  /// error. They leave no core dump: prompts are secrets.
  virtual void spawn(std::uint64_t incarnation, process_plan) = 0;

  /// To the first of them.
  virtual void signal(std::uint64_t incarnation, int number) = 0;
};

/// The processes of this machine.
std::unique_ptr<process_host> make_process_host(process_host::events);

} // namespace troupe::node_agent
