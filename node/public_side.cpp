#include "node/public_side.hpp"

#include "actors/runtime/log.hpp"

#include <caf/send.hpp>

namespace troupe::node {

namespace {

/// Between two attempts to open a port that is taken.
constexpr std::chrono::seconds retry{1};

} // namespace

public_side::public_side(router::service& service,
                         std::chrono::milliseconds grace)
    : service_(service), grace_(grace), thread_([this] { run(); }) {
  // nop
}

public_side::~public_side() {
  stop();
}

void public_side::tell(protocol::node_agent_actor agent) {
  std::lock_guard guard{mutex_};
  agent_ = std::move(agent);
  // Tables and death notices come to the router, also while it does not listen.
  caf::anon_send(agent_, protocol::watch_atom::value, service_.actor(), port_);
  changed_.notify_all();
}

void public_side::want(bool listens) {
  std::lock_guard guard{mutex_};
  wanted_ = listens;
  changed_.notify_all();
}

result<bool> public_side::wait_settled(std::chrono::milliseconds time_max) {
  std::unique_lock guard{mutex_};
  changed_.wait_for(guard, time_max,
                    [&] { return settled_ || !fault_.empty(); });
  if (!fault_.empty())
    return error{errc::io, fault_};
  return settled_;
}

void public_side::stop() {
  {
    std::lock_guard guard{mutex_};
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable())
    thread_.join();
}

std::uint16_t public_side::port() const {
  std::lock_guard guard{mutex_};
  return port_;
}

void public_side::run() {
  std::unique_lock guard{mutex_};
  while (true) {
    changed_.wait(guard, [&] { return stopping_ || (wanted_ && agent_); });
    if (stopping_)
      return;
    auto listens = *wanted_;
    wanted_.reset();
    guard.unlock();
    carry_out(listens);
    guard.lock();
    if (fault_.empty() || wanted_)
      continue;
    // A port that is taken may become free.
    changed_.wait_for(guard, retry, [&] { return stopping_ || wanted_; });
    if (!stopping_ && !wanted_)
      wanted_ = listens;
  }
}

void public_side::carry_out(bool listens) {
  std::string fault;
  if (listens == (port() != 0)) {
    // nop
  } else if (!listens) {
    service_.close_public(grace_);
  } else if (auto opened = service_.open_public(); !opened) {
    fault = opened.error().message;
    spdlog::error("{}", fault);
  }
  std::lock_guard guard{mutex_};
  fault_ = fault;
  settled_ = fault.empty();
  port_ = listens && settled_ ? service_.port() : 0;
  caf::anon_send(agent_, protocol::watch_atom::value, service_.actor(), port_);
  changed_.notify_all();
}

} // namespace troupe::node
