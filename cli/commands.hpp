#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

// The verbs of the command line, one file each. They return the process's exit
// status: 0 = well, 1 = failed, 2 = the file or the command line is wrong.

namespace troupe::cli {

struct run_arguments {
  std::filesystem::path config;
  std::string host;               ///< empty = what the file says
  int port = -1;                  ///< -1 = what the file says
  std::uint16_t admin_port = 8265;
  std::filesystem::path state_dir; ///< empty = default_state_dir()
  bool cpu_only = false;
};

/// A one-node cluster in this terminal, until SIGINT or SIGTERM.
int run(const run_arguments&);

/// Checks a file and says all that is wrong with it.
int validate(const std::filesystem::path& config);

struct status_arguments {
  std::string admin_host = "127.0.0.1";
  std::uint16_t admin_port = 8265;
  bool json = false;
};

/// Asks a running cluster's admin listener.
int status(const status_arguments&);

} // namespace troupe::cli
