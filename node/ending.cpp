#include "node/ending.hpp"

#include <csignal>
#include <ctime>
#include <unistd.h>

namespace troupe::node {

namespace {

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

} // namespace

void hold_ending_signals() {
  auto signals = ending_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGCHLD, SIG_DFL); // ignored by a parent, it would eat statuses
}

bool ending_within(std::chrono::milliseconds time) {
  auto signals = ending_signals();
  timespec wait{time.count() / 1000, (time.count() % 1000) * 1'000'000};
  return sigtimedwait(&signals, nullptr, &wait) > 0;
}

void end_at_next_signal() {
  auto signals = ending_signals();
  for (auto number : {SIGINT, SIGTERM})
    if (sigismember(&signals, number) == 1)
      std::signal(number, [](int which) { ::_exit(128 + which); });
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

void end_at_the_latest(std::chrono::seconds time) {
  std::signal(SIGALRM, [](int) { ::_exit(1); });
  ::alarm(static_cast<unsigned>(time.count()));
}

} // namespace troupe::node
