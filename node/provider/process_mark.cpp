#include "node/provider/process_mark.hpp"

#include "actors/runtime/private_file.hpp"

#include <fmt/format.h>

#include <fstream>
#include <sstream>
#include <vector>

namespace troupe::node {

namespace {

/// This boot of the machine; empty where the kernel does not say.
const std::string& this_boot() {
  static const auto id = [] {
    std::ifstream file{"/proc/sys/kernel/random/boot_id"};
    std::string out;
    file >> out;
    return out.empty() ? std::string{"-"} : out;
  }();
  return id;
}

} // namespace

std::optional<process_mark> mark_of(pid_t pid) {
  if (pid <= 0)
    return std::nullopt;
  std::ifstream file{fmt::format("/proc/{}/stat", pid)};
  std::string line;
  if (!std::getline(file, line))
    return std::nullopt;
  // "PID (NAME) STATE ...": a name may hold anything, parentheses too.
  auto end = line.rfind(')');
  if (end == std::string::npos)
    return std::nullopt;
  std::istringstream fields{line.substr(end + 1)};
  std::string state;
  fields >> state;
  constexpr int start_time = 22;
  constexpr int after_state = 4;
  std::string skipped;
  for (int i = after_state; i < start_time; ++i)
    fields >> skipped;
  process_mark out{pid, 0, this_boot()};
  if (!(fields >> out.started) || state == "Z" || state == "X")
    return std::nullopt;
  return out;
}

bool lives(const process_mark& mark) {
  return mark_of(mark.pid) == mark;
}

result<void> write_mark(const std::filesystem::path& file,
                        const process_mark& mark) {
  return runtime::write_private(
      file, fmt::format("{} {} {}\n", mark.pid, mark.started, mark.boot),
      runtime::if_there::replace);
}

std::optional<process_mark> read_mark(const std::filesystem::path& file) {
  auto text = runtime::read_private(file);
  if (!text)
    return std::nullopt;
  std::istringstream fields{*text};
  process_mark out;
  if (!(fields >> out.pid >> out.started >> out.boot))
    return std::nullopt;
  return out;
}

} // namespace troupe::node
