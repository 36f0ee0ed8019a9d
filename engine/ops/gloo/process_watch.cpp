#include "engine/ops/gloo/process_watch.hpp"

#include <chrono>
#include <cstdint>
#include <exception>
#include <limits>
#include <string>
#include <utility>

namespace troupe::ops {

namespace {

/// Of goodbyes; no other transfer has it.
constexpr std::uint64_t slot = std::numeric_limits<std::uint64_t>::max();

/// As long as it takes, for a wait that needs a number.
constexpr std::chrono::milliseconds no_limit = std::chrono::hours{24 * 365};

/// For a few bytes to be on their way.
constexpr std::chrono::milliseconds goodbye_max{1000};

} // namespace

process_watch::process_watch(std::shared_ptr<gloo::Context> context,
                             std::shared_ptr<thread_group> group,
                             std::vector<int> others)
    : context_(std::move(context)), group_(std::move(group)),
      others_(std::move(others)), thread_([this] { run(); }) {
  // nop
}

process_watch::~process_watch() {
  is_over_ = true;
  say_goodbye();
  wait_.give_up();
  thread_.join();
}

/// Waits for all goodbyes.
void process_watch::run() {
  std::vector<char> bytes(others_.size() + 1);
  auto buffer = context_->createUnboundBuffer(bytes.data(), bytes.size());
  try {
    for (std::size_t i = 0; i < others_.size(); ++i)
      buffer->recv(others_[i], slot, i, 1);
    wait_.run(*buffer, others_.size(), 0, no_limit);
  } catch (const std::exception& why) {
    if (!is_over_)
      group_->end(std::string{"another process of the model is gone: "} +
                  why.what());
  }
}

void process_watch::say_goodbye() {
  try {
    group_->check();
    char byte = 0;
    auto buffer = context_->createUnboundBuffer(&byte, 1);
    for (auto rank : others_)
      buffer->send(rank, slot, 0, 1);
    for (std::size_t i = 0; i < others_.size(); ++i)
      buffer->waitSend(goodbye_max);
  } catch (const std::exception&) {
    // They have noticed already, or do now.
  }
}

} // namespace troupe::ops
