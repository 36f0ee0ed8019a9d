#include "node/background.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

namespace troupe::node {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr auto pipe_variable = "TROUPE_READY_FD";
constexpr std::size_t told_bytes_max = 64 * 1024;
/// With which this program ends where its arguments are wrong.
constexpr int usage_status = 2;

/// The last lines of a file, at most so many bytes.
std::string end_of(const std::filesystem::path& file) {
  constexpr std::streamoff bytes_max = 2000;
  std::ifstream in{file, std::ios::binary | std::ios::ate};
  auto size = static_cast<std::streamoff>(in.tellg());
  if (size <= 0)
    return {};
  in.seekg(std::max<std::streamoff>(0, size - bytes_max));
  std::string out(static_cast<std::size_t>(std::min(size, bytes_max)), '\0');
  in.read(out.data(), static_cast<std::streamsize>(out.size()));
  while (!out.empty() && out.back() == '\n')
    out.pop_back();
  return out;
}

error failed(std::string_view what) {
  return {errc::io, fmt::format("{}: {}", what, std::strerror(errno))};
}

struct readiness_pipe {
  int read = -1;
  int write = -1;

  ~readiness_pipe() {
    for (auto fd : {read, write})
      if (fd >= 0)
        ::close(fd);
  }
};

/// In the child: never returns.
[[noreturn]] void become(const std::vector<std::string>& arguments, int log,
                         int ready) {
  ::setsid();
  auto nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  auto kept = ::dup(ready); // the pipe's own end closes at exec
  ::setenv(pipe_variable, std::to_string(kept).c_str(), 1);
  std::vector<char*> argv;
  std::string name = "troupe";
  argv.push_back(name.data());
  for (const auto& argument : arguments)
    argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::execv("/proc/self/exe", argv.data());
  ::_exit(127);
}

/// Reads until the other side closes or the time is over.
std::string hear(int fd, steady_clock::time_point end) {
  std::string out;
  while (out.size() < told_bytes_max) {
    auto left =
        std::chrono::duration_cast<milliseconds>(end - steady_clock::now());
    pollfd waiting{fd, POLLIN, 0};
    if (left.count() <= 0 ||
        ::poll(&waiting, 1, static_cast<int>(left.count())) <= 0)
      break;
    char buffer[4096];
    auto got = ::read(fd, buffer, sizeof buffer);
    if (got <= 0)
      break;
    out.append(buffer, static_cast<std::size_t>(got));
  }
  return out;
}

} // namespace

result<std::string> run_in_background(const std::vector<std::string>& arguments,
                                      const std::filesystem::path& log_file,
                                      milliseconds time_max) {
  auto end = steady_clock::now() + time_max;
  auto log =
      ::open(log_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (log < 0)
    return failed(log_file.string());
  readiness_pipe ready;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    ::close(log);
    return failed("pipe");
  }
  ready.read = ends[0];
  ready.write = ends[1];
  auto pid = ::fork();
  if (pid == 0)
    become(arguments, log, ready.write);
  ::close(log);
  ::close(std::exchange(ready.write, -1));
  if (pid < 0)
    return failed("fork");
  auto told = hear(ready.read, end);
  if (!told.empty())
    return told;
  ::kill(pid, SIGKILL); // silent, or gone already
  int status = 0;
  ::waitpid(pid, &status, 0);
  auto is_usage = WIFEXITED(status) && WEXITSTATUS(status) == usage_status;
  auto last = end_of(log_file);
  return error{is_usage ? errc::invalid_argument : errc::unavailable,
               last.empty()
                   ? "the node did not come up; see " + log_file.string()
                   : last};
}

std::vector<std::string> environment_for_others() {
  const auto own = std::string{pipe_variable} + "=";
  std::vector<std::string> out;
  for (char** variable = environ; *variable; ++variable)
    if (!std::string_view{*variable}.starts_with(own))
      out.emplace_back(*variable);
  return out;
}

void tell_parent(const std::string& text) {
  const auto* given = std::getenv(pipe_variable);
  if (!given)
    return;
  auto fd = std::atoi(given);
  ::unsetenv(pipe_variable);
  if (fd <= STDERR_FILENO)
    return;
  [[maybe_unused]] auto written = ::write(fd, text.data(), text.size());
  ::close(fd);
}

} // namespace troupe::node
