#include "cli/commands.hpp"
#include "node/node_facts.hpp"
#include "node/state_directory.hpp"

#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <thread>

namespace troupe::cli {

int stop(const stop_arguments& args) {
  auto state_dir =
      args.state_dir.empty() ? node::default_state_dir() : args.state_dir;
  auto facts = node::read_facts(state_dir);
  auto lock = node::state_lock::take(state_dir);
  if (!facts) {
    auto busy = !lock && lock.error().code == errc::unavailable;
    fmt::print(stderr, "{}\n",
               busy ? lock.error().message + ", and is starting or ending"
                    : facts.error().message);
    return 1;
  }
  if (lock) { // nobody holds it: what the file names is no node any more
    node::remove_facts(state_dir);
    fmt::print(stderr, "the node {} has ended without a word\n", facts->node);
    return 1;
  }
  auto pid = static_cast<pid_t>(facts->pid);
  if (::kill(pid, SIGTERM) != 0) {
    fmt::print(stderr, "the node {} (pid {}) cannot be told to end\n",
               facts->node, facts->pid);
    return 1;
  }
  using clock = std::chrono::steady_clock;
  auto end = clock::now() + std::chrono::duration_cast<clock::duration>(
                                std::chrono::duration<double>{args.wait_s});
  while (!node::state_lock::take(state_dir)) {
    if (clock::now() > end) {
      fmt::print(stderr, "the node {} (pid {}) is still ending\n", facts->node,
                 facts->pid);
      return 1;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds{50});
  }
  fmt::print("the node {} has ended\n", facts->node);
  return 0;
}

} // namespace troupe::cli
