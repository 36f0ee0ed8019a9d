#include "node/state_directory.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace troupe::node {

std::filesystem::path default_state_dir() {
  if (const auto* state = std::getenv("XDG_STATE_HOME"); state && *state)
    return std::filesystem::path{state} / "troupe";
  const auto* home = std::getenv("HOME");
  return std::filesystem::path{home && *home ? home : "."} /
         ".local/state/troupe";
}

result<void> make_state_dir(const std::filesystem::path& folder) {
  auto wrong = [&](std::string_view why) {
    return error{errc::io, fmt::format("the state directory {} {}",
                                       folder.string(), why)};
  };
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  struct stat info {};
  if (code || ::stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode))
    return wrong("cannot be made: " +
                 (code ? code.message() : std::string{"it is no directory"}));
  if (info.st_uid != ::geteuid())
    return wrong("belongs to somebody else");
  if (::chmod(folder.c_str(), 0700) != 0)
    return wrong(
        fmt::format("cannot be made private: {}", std::strerror(errno)));
  return {};
}

namespace {

/// The lock's file says who has it, for people alone.
void write_holder(int fd) {
  auto pid = std::to_string(::getpid()) + "\n";
  [[maybe_unused]] auto done =
      ::ftruncate(fd, 0) == 0 && ::pwrite(fd, pid.data(), pid.size(), 0) > 0;
}

std::string holder(int fd) {
  char text[24] = {};
  [[maybe_unused]] auto read = ::pread(fd, text, sizeof text - 1, 0);
  auto pid = std::atoll(text);
  return pid > 0 ? fmt::format(" (pid {})", pid) : std::string{};
}

} // namespace

result<std::unique_ptr<state_lock>>
state_lock::take(const std::filesystem::path& state_dir) {
  auto file = state_dir / "lock";
  auto fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0)
    return error{errc::io, fmt::format("{} cannot be opened: {}", file.string(),
                                       std::strerror(errno))};
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    auto why = fmt::format("another node{} runs with the state directory {}",
                           holder(fd), state_dir.string());
    ::close(fd);
    return error{errc::unavailable, std::move(why)};
  }
  write_holder(fd);
  return std::unique_ptr<state_lock>{new state_lock{fd}};
}

state_lock::~state_lock() {
  ::close(file_);
}

std::filesystem::path
membership_directory(const std::filesystem::path& state_dir) {
  return state_dir / "membership";
}

} // namespace troupe::node
