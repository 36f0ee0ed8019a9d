#pragma once

#include "engine/codec/error.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <sys/types.h>

namespace troupe::node {

/// A process, and no other one that gets its id later: ids are used again,
/// ids with start times are not within one boot of the machine.
struct process_mark {
  pid_t pid = 0;
  std::uint64_t started = 0; ///< clock ticks since the machine's boot
  std::string boot;          ///< the boot's id

  bool operator==(const process_mark&) const = default;
};

/// Of a process that runs now; nothing if there is none (one that has ended
/// and was not waited for is none).
std::optional<process_mark> mark_of(pid_t);

bool lives(const process_mark&);

/// On disk when it returns.
result<void> write_mark(const std::filesystem::path&, const process_mark&);
std::optional<process_mark> read_mark(const std::filesystem::path&);

} // namespace troupe::node
