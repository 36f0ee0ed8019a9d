#pragma once

#include "engine/codec/error.hpp"

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

// A node that goes to the background: this program again in a session of its
// own, its output in a log file, and a pipe over which it says that it is up.

namespace troupe::node {

/// Starts this program with these arguments (without the program's name) and
/// waits until it calls `tell_parent` or ends, at most `time_max`. Returns what
/// it told. Errors: it ended (invalid_argument: as one does whose arguments are
/// wrong) or was silent; then it is ended, and the message holds the last lines
/// of its log.
result<std::string> run_in_background(const std::vector<std::string>& arguments,
                                      const std::filesystem::path& log,
                                      std::chrono::milliseconds time_max);

/// This process's environment ("NAME=VALUE" each) without what is for it alone;
/// for others that it starts. Nobody may change it meanwhile.
std::vector<std::string> environment_for_others();

/// In the process that `run_in_background` started: tells the parent; does
/// nothing in any other.
void tell_parent(const std::string& text);

} // namespace troupe::node
