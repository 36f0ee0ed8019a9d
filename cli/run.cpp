#include "actors/runtime/logging.hpp"
#include "cli/commands.hpp"
#include "cli/one_node_cluster.hpp"
#include "cli/progress.hpp"
#include "config/serve_config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <sys/stat.h>
#include <unistd.h>

namespace troupe::cli {

namespace {

using std::chrono::milliseconds;

/// How often the models are looked at while they come up, and later.
constexpr milliseconds look_early{100};
constexpr milliseconds look_later{1000};

/// $XDG_STATE_HOME/troupe, else ~/.local/state/troupe.
std::filesystem::path default_state_dir() {
  if (const auto* state = std::getenv("XDG_STATE_HOME"); state && *state)
    return std::filesystem::path{state} / "troupe";
  const auto* home = std::getenv("HOME");
  return std::filesystem::path{home && *home ? home : "."} /
         ".local/state/troupe";
}

/// Makes the folder (mode 0700); what is wrong goes to stderr.
bool make_state_dir(const std::filesystem::path& folder) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  struct stat info {};
  if (code || ::stat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    fmt::print(stderr, "the state directory {} cannot be made: {}\n",
               folder.string(), code ? code.message() : "it is no directory");
    return false;
  }
  if (info.st_uid != ::geteuid()) {
    fmt::print(stderr, "the state directory {} belongs to somebody else\n",
               folder.string());
    return false;
  }
  if (::chmod(folder.c_str(), 0700) != 0) {
    fmt::print(stderr, "the state directory {} cannot be made private: {}\n",
               folder.string(), std::strerror(errno));
    return false;
  }
  return true;
}

/// Signals that end the cluster; blocked in all threads and waited for by the
/// main one.
sigset_t ending_signals() {
  sigset_t out;
  sigemptyset(&out);
  for (auto number : {SIGINT, SIGTERM, SIGHUP}) {
    // What our parent ignores for us (nohup, "&" in a script) we ignore too.
    struct sigaction now {};
    if (::sigaction(number, nullptr, &now) == 0 && now.sa_handler != SIG_IGN)
      sigaddset(&out, number);
  }
  return out;
}

/// True if one of them came within the time.
bool signal_within(milliseconds time) {
  auto signals = ending_signals();
  timespec wait{time.count() / 1000, (time.count() % 1000) * 1'000'000};
  return sigtimedwait(&signals, nullptr, &wait) > 0;
}

milliseconds drain_time(const config::serve_config& config) {
  double longest = 0;
  for (const auto& application : config.applications)
    for (const auto& model : application.models)
      longest = std::max(longest, model.deployment.graceful_shutdown_timeout_s);
  return milliseconds{static_cast<std::int64_t>(longest * 1000)};
}

/// Shows how the models come up and go until a signal comes.
void watch(one_node_cluster& cluster, const std::string& url) {
  progress terminal{::isatty(STDOUT_FILENO) == 1};
  auto announced = false;
  while (!signal_within(announced ? look_later : look_early)) {
    auto status = cluster.status();
    if (!status)
      continue;
    terminal.show(*status);
    if (!announced && progress::settled(*status)) {
      announced = true;
      fmt::print("serving {} (admin: http://127.0.0.1:{}), Ctrl-C ends\n", url,
                 cluster.admin_port());
      std::fflush(stdout);
    }
  }
}

/// A second signal while it stops means: now.
class impatience {
public:
  impatience() {
    auto signals = ending_signals();
    for (auto number : {SIGINT, SIGTERM})
      if (sigismember(&signals, number) == 1)
        std::signal(number, [](int which) { ::_exit(128 + which); });
    pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  }
};

} // namespace

int run(const run_arguments& args) {
  auto loaded = config::load(args.config);
  for (const auto& finding : loaded.findings.all())
    fmt::print(stderr, "{}\n", to_string(finding));
  if (loaded.findings.has_errors())
    return 2;
  one_node_cluster::options options;
  options.config = std::move(loaded.values);
  if (!args.host.empty())
    options.config.http.host = args.host;
  if (args.port >= 0)
    options.config.http.port = static_cast<std::uint16_t>(args.port);
  options.admin_port = args.admin_port;
  options.cpu_only = args.cpu_only;
  options.state_dir =
      args.state_dir.empty() ? default_state_dir() : args.state_dir;
  if (!make_state_dir(options.state_dir))
    return 1;
  runtime::logging_options logging;
  logging.level = options.config.logging.level;
  logging.json = options.config.logging.json;
  logging.process = "head";
  if (auto done = runtime::set_up_logging(logging); !done) {
    fmt::print(stderr, "{}\n", done.error().message);
    return 2;
  }
  auto signals = ending_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGCHLD, SIG_DFL); // ignored by a parent, it would eat statuses
  auto patience = drain_time(options.config);
  auto host = options.config.http.host;
  auto cluster = one_node_cluster::start(std::move(options));
  if (!cluster) {
    fmt::print(stderr, "{}\n", cluster.error().message);
    return 1;
  }
  watch(**cluster, fmt::format("http://{}:{}", host, (*cluster)->port()));
  fmt::print("\nstopping: answers under way may take {:.0f} s, Ctrl-C again "
             "ends at once\n",
             patience.count() / 1000.0);
  std::fflush(stdout);
  impatience now;
  auto clean = (*cluster)->stop(patience);
  // Nothing is left to wait for; an actor that hangs must not hold us.
  constexpr unsigned end_seconds = 10;
  std::signal(SIGALRM, [](int) { ::_exit(1); });
  ::alarm(end_seconds);
  return clean ? 0 : 1;
}

} // namespace troupe::cli
