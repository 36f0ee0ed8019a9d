#include "node/provider/subprocess.hpp"

#include "actors/runtime/log.hpp"
#include "actors/runtime/private_file.hpp"
#include "node/provider/process_mark.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <fstream>
#include <mutex>
#include <optional>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace troupe::node {

namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using clock = std::chrono::steady_clock;

/// Between two looks whether processes have ended.
constexpr milliseconds look_time{100};
constexpr milliseconds killed_max{5'000};
constexpr auto mark_file = "process";
constexpr auto ending_file = "ending"; // it was told to end
constexpr auto log_file = "log";
constexpr auto state_folder = "state";

error failure(std::string_view what) {
  return {errc::io, fmt::format("{}: {}", what, std::strerror(errno))};
}

/// The last line that says something, at most so many bytes of it.
std::string last_line(const fs::path& file) {
  constexpr std::streamoff read_max = 4'000;
  constexpr std::size_t line_max = 300;
  std::ifstream in{file, std::ios::binary | std::ios::ate};
  auto size = static_cast<std::streamoff>(in.tellg());
  if (!in || size <= 0)
    return {};
  in.seekg(std::max<std::streamoff>(0, size - read_max));
  std::string line;
  std::string out;
  while (std::getline(in, line))
    if (!line.empty())
      out = line;
  return out.substr(0, line_max);
}

std::string in_words(int status) {
  if (WIFSIGNALED(status))
    return fmt::format("killed by signal {}", WTERMSIG(status));
  return fmt::format("ended with status {}", WEXITSTATUS(status));
}

class file_descriptor {
public:
  explicit file_descriptor(int fd = -1) : fd_(fd) {
    // nop
  }
  ~file_descriptor() {
    close();
  }
  file_descriptor(const file_descriptor&) = delete;
  file_descriptor& operator=(const file_descriptor&) = delete;

  void reset(int fd) {
    close();
    fd_ = fd;
  }
  void close() {
    if (fd_ >= 0)
      ::close(std::exchange(fd_, -1));
  }
  int get() const {
    return fd_;
  }

private:
  int fd_;
};

/// Pointers to texts, as exec takes them; the texts live elsewhere.
std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (auto& text : texts)
    out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

/// In the child, which may call nothing that takes a lock: waits until the
/// parent has written down which process it is, and becomes the worker. Without
/// its parent it ends.
[[noreturn]] void become(const char* executable, char* const* argv,
                         char* const* envp, int log, int gate, int gate_end) {
  ::close(gate_end);
  ::setsid();
  char go = 0;
  ssize_t got = 0;
  while ((got = ::read(gate, &go, 1)) < 0 && errno == EINTR) {
  }
  if (got != 1)
    ::_exit(126);
  sigset_t none;
  sigemptyset(&none);
  for (int number : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD})
    ::signal(number, SIG_DFL);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  auto nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  if (::close_range(STDERR_FILENO + 1, ~0U, 0) != 0)
    for (int fd = STDERR_FILENO + 1; fd < 4'096; ++fd)
      ::close(fd);
  ::execve(executable, argv, envp);
  constexpr char sorry[] = "the program cannot be run\n";
  [[maybe_unused]] auto said = ::write(STDERR_FILENO, sorry, sizeof sorry - 1);
  ::_exit(127);
}

class subprocess_provider final : public node_provider {
public:
  explicit subprocess_provider(subprocess_options options)
      : options_(std::move(options)), thread_([this] { run(); }) {
    // nop
  }

  ~subprocess_provider() override {
    {
      std::lock_guard guard{mutex_};
      is_over_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  std::vector<living_node> living() override;

  void listen(gone tell) override {
    std::lock_guard guard{mutex_};
    tell_ = std::move(tell);
    for (const auto& [node, why] : std::exchange(untold_, {}))
      tell_(node, why);
  }

  void ask(const std::string& node, const std::string& type) override {
    push({node, type, false});
  }

  void end(const std::string& node) override {
    push({node, {}, true});
  }

  void end_all(milliseconds in_order_max) override;

private:
  struct wish {
    std::string node;
    std::string type;
    bool end = false;
  };

  struct worker {
    process_mark mark;
    bool is_child = false; ///< of this process, which must wait for it
    std::optional<clock::time_point> kill_at; ///< it was told to end
    bool killed = false;
  };

  void push(wish what) {
    {
      std::lock_guard guard{mutex_};
      wishes_.push_back(std::move(what));
    }
    changed_.notify_all();
  }

  fs::path folder_of(const std::string& node) const {
    return options_.directory / node;
  }

  // On the thread, without the lock.
  void run();
  void carry_out(const wish&);
  result<worker> start(const std::string& node, const std::string& type);
  result<pid_t> spawn(const std::string& node, const worker_command&);
  void tell_to_end(const std::string& node);
  void look();
  static std::optional<std::string> end_of(worker&);
  void tell(const std::string& node, const std::string& why);

  subprocess_options options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<wish> wishes_;
  std::vector<std::pair<std::string, std::string>> untold_;
  gone tell_;
  bool is_over_ = false;
  bool is_ending_ = false; ///< all of them; nothing is started any more
  bool kill_all_ = false;
  std::size_t left_ = 0; ///< workers, for who waits

  std::map<std::string, worker> workers_; ///< the thread's, after `living`
  std::thread thread_;
};

std::vector<living_node> subprocess_provider::living() {
  std::lock_guard guard{mutex_};
  std::vector<living_node> out;
  std::error_code code;
  std::vector<fs::path> folders;
  fs::directory_iterator entry{options_.directory, code};
  for (; !code && entry != fs::directory_iterator{}; entry.increment(code))
    folders.push_back(entry->path());
  for (const auto& folder : folders) {
    auto mark = read_mark(folder / mark_file);
    if (!mark || !lives(*mark)) {
      fs::remove_all(folder, code);
      continue;
    }
    auto node = folder.filename().string();
    workers_[node].mark = *mark;
    auto ending = fs::exists(folder / ending_file, code);
    if (ending)
      tell_to_end(node); // once more: it may not have heard it
    out.push_back({node, ending});
  }
  left_ = workers_.size();
  changed_.notify_all();
  return out;
}

void subprocess_provider::run() {
  std::unique_lock lock{mutex_};
  while (!is_over_) {
    auto due = [this] { return is_over_ || !wishes_.empty(); };
    if (left_ > 0)
      changed_.wait_for(lock, look_time, due);
    else
      changed_.wait(lock, [&] { return due() || left_ > 0; });
    auto wishes = std::exchange(wishes_, {});
    auto ending = is_ending_;
    auto killing = kill_all_;
    lock.unlock();
    for (const auto& one : wishes)
      carry_out(one);
    if (ending)
      for (auto& [node, one] : workers_) {
        tell_to_end(node);
        if (killing)
          one.kill_at = clock::now();
      }
    look();
    lock.lock();
    left_ = workers_.size();
    changed_.notify_all();
  }
}

void subprocess_provider::carry_out(const wish& what) {
  if (what.end)
    return tell_to_end(what.node);
  if (workers_.contains(what.node))
    return;
  auto begun = start(what.node, what.type);
  if (begun) {
    workers_[what.node] = *begun;
    return;
  }
  std::error_code ignored;
  fs::remove_all(folder_of(what.node), ignored);
  tell(what.node, begun.error().message);
}

result<subprocess_provider::worker>
subprocess_provider::start(const std::string& node, const std::string& type) {
  {
    std::lock_guard guard{mutex_};
    if (is_ending_)
      return error{errc::unavailable, "the head ends"};
  }
  auto found = options_.types.find(type);
  if (found == options_.types.end())
    return error{errc::not_found, "there is no node type " + type};
  const auto& program = found->second.executable;
  std::error_code code;
  if (!fs::is_regular_file(program, code) ||
      ::access(program.c_str(), X_OK) != 0)
    return error{errc::not_found, program.string() + " cannot be run"};
  for (const auto& folder : {options_.directory, folder_of(node)})
    if (auto made = runtime::make_private_directory(folder); !made)
      return made.error();
  auto pid = spawn(node, found->second);
  if (!pid)
    return pid.error();
  auto mark = mark_of(*pid);
  if (!mark)
    mark = process_mark{*pid, 0, {}}; // it has ended already; look() says why
  return worker{*mark, true, {}, false};
}

result<pid_t> subprocess_provider::spawn(const std::string& node,
                                         const worker_command& what) {
  auto folder = folder_of(node);
  auto more = options_.environment();
  if (!more)
    return more.error();
  std::vector<std::string> arguments{"troupe"};
  arguments.insert(arguments.end(), what.arguments.begin(),
                   what.arguments.end());
  for (auto text :
       {std::string{"--node-name"}, node, std::string{"--state-dir"},
        (folder / state_folder).string()})
    arguments.push_back(std::move(text));
  auto environment = options_.inherited;
  for (const auto& [name, value] : *more)
    environment.push_back(name + "=" + value);
  auto argv = pointers(arguments);
  auto envp = pointers(environment);
  file_descriptor log{::open((folder / log_file).c_str(),
                             O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)};
  if (log.get() < 0)
    return failure("a node's log");
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    return failure("pipe");
  file_descriptor gate{ends[0]};
  file_descriptor gate_end{ends[1]};
  auto pid = ::fork();
  if (pid == 0)
    become(what.executable.c_str(), argv.data(), envp.data(), log.get(),
           gate.get(), gate_end.get());
  if (pid < 0)
    return failure("fork");
  auto mark = mark_of(pid);
  auto written = mark ? write_mark(folder / mark_file, *mark)
                      : result<void>{error{errc::io, "a process is not to be "
                                                     "seen in /proc"}};
  if (!written) {
    gate_end.close(); // it ends
    ::waitpid(pid, nullptr, 0);
    return written.error();
  }
  [[maybe_unused]] auto let_go = ::write(gate_end.get(), "g", 1);
  return pid;
}

void subprocess_provider::tell_to_end(const std::string& node) {
  auto found = workers_.find(node);
  if (found == workers_.end() || found->second.kill_at)
    return;
  auto& one = found->second;
  one.kill_at = clock::now() + options_.end_max;
  if (auto kept = runtime::write_private(folder_of(node) / ending_file, "",
                                         runtime::if_there::replace);
      !kept)
    spdlog::warn("{}", kept.error().message);
  if (one.is_child || lives(one.mark))
    ::kill(one.mark.pid, SIGTERM);
}

/// How a worker that is gone has ended; nothing while it lives.
std::optional<std::string> subprocess_provider::end_of(worker& one) {
  if (!one.is_child)
    return lives(one.mark) ? std::nullopt
                           : std::optional<std::string>{"it has ended"};
  int status = 0;
  auto got = ::waitpid(one.mark.pid, &status, WNOHANG);
  if (got == 0 || (got < 0 && errno == EINTR))
    return std::nullopt;
  return got < 0 ? "it has ended" : in_words(status);
}

void subprocess_provider::look() {
  for (auto i = workers_.begin(); i != workers_.end();) {
    auto& [node, one] = *i;
    if (auto how = end_of(one)) {
      auto why = one.kill_at ? std::string{} : *how;
      auto last = last_line(folder_of(node) / log_file);
      if (!why.empty() && !last.empty())
        why += ": " + last;
      std::error_code ignored;
      fs::remove_all(folder_of(node), ignored);
      tell(node, why);
      i = workers_.erase(i);
      continue;
    }
    if (one.kill_at && !one.killed && clock::now() >= *one.kill_at) {
      spdlog::warn("the node {} does not end; it is killed", node);
      one.killed = true;
      // Its replicas end with it: their lifelines close.
      ::kill(one.mark.pid, SIGKILL);
    }
    ++i;
  }
}

void subprocess_provider::tell(const std::string& node,
                               const std::string& why) {
  std::lock_guard guard{mutex_};
  if (tell_)
    tell_(node, why);
  else
    untold_.emplace_back(node, why);
}

void subprocess_provider::end_all(milliseconds in_order_max) {
  std::unique_lock lock{mutex_};
  is_ending_ = true;
  wishes_.push_back({{}, {}, true}); // so that the thread looks
  left_ = std::max<std::size_t>(left_, 1);
  changed_.notify_all();
  auto none = [this] { return left_ == 0; };
  if (changed_.wait_for(lock, in_order_max, none))
    return;
  kill_all_ = true;
  if (!changed_.wait_for(lock, killed_max, none))
    spdlog::error("{} nodes could not be ended", left_);
}

} // namespace

std::unique_ptr<node_provider>
make_subprocess_provider(subprocess_options options) {
  return std::make_unique<subprocess_provider>(std::move(options));
}

} // namespace troupe::node
