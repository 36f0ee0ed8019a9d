#pragma once

#include "engine/codec/error.hpp"

#include <filesystem>
#include <memory>

namespace troupe::node {

/// $XDG_STATE_HOME/troupe, else ~/.local/state/troupe.
std::filesystem::path default_state_dir();

/// Makes the folder, or makes it private (mode 0700). Errors: it belongs to
/// somebody else, or is no folder.
result<void> make_state_dir(const std::filesystem::path&);

/// Holds a state directory for this process until it ends, however that
/// happens.
class state_lock {
public:
  /// An error that names the process if another one has it.
  static result<std::unique_ptr<state_lock>>
  take(const std::filesystem::path& state_dir);

  ~state_lock();
  state_lock(const state_lock&) = delete;
  state_lock& operator=(const state_lock&) = delete;

private:
  explicit state_lock(int file) : file_(file) {
    // nop
  }

  int file_;
};

/// Where a worker's certificate and the place of its head are kept
/// (runtime::join_cluster).
std::filesystem::path
membership_directory(const std::filesystem::path& state_dir);

} // namespace troupe::node
