#include "actors/node_agent/process_host.hpp"

#include "actors/protocol/launch_record.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <map>
#include <mutex>
#include <poll.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>

// glibc 2.36 declares it without C linkage.
extern "C" int pidfd_open(pid_t pid, unsigned int flags) noexcept;

namespace troupe::node_agent {

namespace {

/// The most that a pipe of an unprivileged process holds.
constexpr std::size_t launch_bytes_max = (1u << 20) - sizeof(std::uint32_t);

class file {
public:
  explicit file(int fd = -1) : fd_(fd) {
    // nop
  }

  file(file&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {
    // nop
  }

  file& operator=(file&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  ~file() {
    if (fd_ >= 0)
      ::close(fd_);
  }

  int get() const {
    return fd_;
  }

private:
  int fd_;
};

error system_error(const char* what, int number) {
  return {errc::io, std::string{what} + ": " + std::strerror(number)};
}

struct lifeline {
  file read;
  file write;
};

/// A pipe that holds the launch record already, so that nobody ever waits for
/// the process to read it.
result<lifeline> make_lifeline(const codec::bytes& launch) {
  if (launch.size() > launch_bytes_max)
    return error{errc::limit, "the launch record is too large"};
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    return system_error("pipe", errno);
  lifeline out{file{ends[0]}, file{ends[1]}};
  auto size = static_cast<std::uint32_t>(launch.size());
  codec::bytes framed(sizeof size + launch.size());
  std::memcpy(framed.data(), &size, sizeof size);
  if (size != 0)
    std::memcpy(framed.data() + sizeof size, launch.data(), size);
  constexpr std::size_t pipe_bytes = 65'536;
  if (framed.size() > pipe_bytes &&
      ::fcntl(out.write.get(), F_SETPIPE_SZ, framed.size()) < 0)
    return system_error("pipe size", errno);
  if (::write(out.write.get(), framed.data(), framed.size()) !=
      static_cast<ssize_t>(framed.size()))
    return system_error("pipe write", errno);
  return out;
}

/// posix_spawn with what `process_host::spawn` promises.
result<pid_t> start_process(const process_plan& plan, int lifeline) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY,
                                   0);
  posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, lifeline, protocol::lifeline_fd);
  posix_spawn_file_actions_addclosefrom_np(&files, protocol::lifeline_fd + 1);

  posix_spawnattr_t how;
  posix_spawnattr_init(&how);
  sigset_t none;
  sigset_t usual;
  sigemptyset(&none);
  sigemptyset(&usual);
  for (int number : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD})
    sigaddset(&usual, number);
  posix_spawnattr_setsigmask(&how, &none);
  posix_spawnattr_setsigdefault(&how, &usual);
  posix_spawnattr_setpgroup(&how, 0);
  posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK |
                                     POSIX_SPAWN_SETSIGDEF |
                                     POSIX_SPAWN_SETPGROUP);

  auto arguments = plan.arguments;
  std::string name = "troupe";
  std::vector<char*> argv{name.data()};
  for (auto& argument : arguments)
    argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  int failed = ::posix_spawn(&pid, plan.executable.c_str(), &files, &how,
                             argv.data(), environ);
  posix_spawnattr_destroy(&how);
  posix_spawn_file_actions_destroy(&files);
  if (failed != 0)
    return system_error(plan.executable.c_str(), failed);
  return pid;
}

/// Limits of a process that has just been started; posix_spawn has none.
result<void> limit_process(pid_t pid, std::uint64_t memory_bytes) {
  rlimit memory{memory_bytes, memory_bytes};
  if (memory_bytes != 0 && ::prlimit(pid, RLIMIT_DATA, &memory, nullptr) != 0)
    return system_error("memory limit", errno);
  // One byte, not none: the kernel ignores 0 where a program takes the dumps.
  rlimit core{1, 1};
  if (::prlimit(pid, RLIMIT_CORE, &core, nullptr) != 0)
    return system_error("no core dumps", errno);
  return {};
}

process_end wait_for(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status))
    return {0, WTERMSIG(status), ""};
  return {WEXITSTATUS(status), 0, ""};
}

/// One thread starts, signals and reaps all processes, so that no signal can
/// reach a process id that is already somebody else's.
class local_process_host : public process_host {
public:
  explicit local_process_host(events handlers)
      : handlers_(std::move(handlers)), wake_(::eventfd(0, EFD_CLOEXEC)),
        thread_([this] { run(); }) {
    // nop
  }

  ~local_process_host() override {
    post([this] {
      ending_ = true;
      for (auto& x : processes_)
        ::kill(x.pid, SIGKILL);
    });
    thread_.join();
  }

  void spawn(std::uint64_t incarnation, process_plan plan) override {
    post([this, incarnation, plan = std::move(plan)] {
      if (auto started = try_spawn(incarnation, plan); !started)
        handlers_.ended(incarnation, {0, 0, started.error().message});
    });
  }

  void signal(std::uint64_t incarnation, int number) override {
    post([this, incarnation, number] {
      for (auto& x : processes_)
        if (x.incarnation == incarnation && x.is_first)
          ::kill(x.pid, number); // not reaped yet: still ours
    });
  }

private:
  struct process {
    std::uint64_t incarnation = 0;
    bool is_first = true;
    pid_t pid = 0;
    file handle;   ///< pidfd: readable once the process has ended
    file lifeline; ///< write end
  };

  void post(std::function<void()> order) {
    std::lock_guard guard{mutex_};
    orders_.push_back(std::move(order));
    std::uint64_t one = 1;
    [[maybe_unused]] auto n = ::write(wake_.get(), &one, sizeof one);
  }

  result<void> try_spawn(std::uint64_t incarnation, const process_plan& plan) {
    std::vector<process> made;
    for (const auto& launch : plan.launches) {
      auto one = try_start(plan, launch);
      if (!one) {
        for (const auto& x : made) {
          ::kill(x.pid, SIGKILL);
          wait_for(x.pid);
        }
        return one.error();
      }
      one->incarnation = incarnation;
      one->is_first = made.empty();
      made.push_back(std::move(*one));
    }
    auto first = made.front().pid;
    for (auto& x : made)
      processes_.push_back(std::move(x));
    handlers_.spawned(incarnation, first);
    return {};
  }

  static result<process> try_start(const process_plan& plan,
                                   const codec::bytes& launch) {
    auto line = make_lifeline(launch);
    if (!line)
      return line.error();
    auto pid = start_process(plan, line->read.get());
    if (!pid)
      return pid.error();
    process out;
    out.pid = *pid;
    out.handle = file{::pidfd_open(*pid, 0)};
    out.lifeline = std::move(line->write);
    auto limited = out.handle.get() < 0
                       ? result<void>{system_error("pidfd_open", errno)}
                       : limit_process(*pid, plan.memory_bytes);
    if (!limited) {
      ::kill(*pid, SIGKILL);
      wait_for(*pid);
      return limited.error();
    }
    return out;
  }

  void run() {
    while (!ending_ || !processes_.empty()) {
      std::vector<pollfd> watched{{wake_.get(), POLLIN, 0}};
      for (auto& x : processes_)
        watched.push_back({x.handle.get(), POLLIN, 0});
      if (::poll(watched.data(), watched.size(), -1) < 0)
        continue; // EINTR
      // From the back: reaping removes.
      for (auto i = watched.size() - 1; i > 0; --i)
        if (watched[i].revents != 0)
          reap(i - 1);
      if (watched[0].revents != 0)
        obey();
    }
  }

  void reap(std::size_t index) {
    auto ended = std::move(processes_[index]);
    processes_.erase(processes_.begin() + static_cast<std::ptrdiff_t>(index));
    auto end = wait_for(ended.pid);
    // Another one that ends well was told to by the first, whose end counts.
    if (!ended.is_first && end.signal == 0 && end.exit_code == 0 &&
        has_first(ended.incarnation))
      return;
    auto [first, is_new] = ends_.try_emplace(ended.incarnation, end);
    bool any_left = false;
    for (const auto& x : processes_)
      if (x.incarnation == ended.incarnation) {
        any_left = true;
        if (is_new)
          ::kill(x.pid, SIGKILL);
      }
    if (any_left)
      return;
    end = std::move(first->second);
    ends_.erase(first);
    handlers_.ended(ended.incarnation, std::move(end));
  }

  bool has_first(std::uint64_t incarnation) const {
    for (const auto& x : processes_)
      if (x.incarnation == incarnation && x.is_first)
        return true;
    return false;
  }

  void obey() {
    std::uint64_t count = 0;
    [[maybe_unused]] auto n = ::read(wake_.get(), &count, sizeof count);
    std::deque<std::function<void()>> orders;
    {
      std::lock_guard guard{mutex_};
      orders.swap(orders_);
    }
    for (auto& order : orders)
      order();
  }

  events handlers_;
  file wake_;
  std::mutex mutex_;
  std::deque<std::function<void()>> orders_;
  std::vector<process> processes_; ///< the thread's
  /// Of replicas that still have a process: how the first one ended.
  std::map<std::uint64_t, process_end> ends_;
  bool ending_ = false; ///< the thread's
  std::thread thread_;
};

} // namespace

std::unique_ptr<process_host> make_process_host(process_host::events handlers) {
  return std::make_unique<local_process_host>(std::move(handlers));
}

} // namespace troupe::node_agent
