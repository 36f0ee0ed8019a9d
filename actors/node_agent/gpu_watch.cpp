#include "actors/node_agent/gpu_watch.hpp"

#include "actors/node_agent/nvml.hpp"

#include <chrono>

namespace troupe::node_agent {

namespace {

constexpr std::chrono::seconds pause{1};

} // namespace

gpu_watch::~gpu_watch() {
  {
    std::lock_guard lock{mutex_};
    stopped_ = true;
  }
  stop_.notify_all();
  if (thread_.joinable())
    thread_.join();
}

void gpu_watch::look_at(const std::vector<std::string>& names) {
  if (names.empty())
    return;
  std::lock_guard lock{mutex_};
  for (const auto& name : names)
    last_.try_emplace(name);
  if (!thread_.joinable())
    thread_ = std::thread{[this] { run(); }};
}

std::vector<protocol::gpu_use>
gpu_watch::of(const std::vector<std::string>& names) const {
  std::vector<protocol::gpu_use> out;
  std::lock_guard lock{mutex_};
  for (const auto& name : names)
    if (auto known = last_.find(name);
        known != last_.end() && known->second.memory_total != 0)
      out.push_back(known->second);
  return out;
}

void gpu_watch::run() {
  const nvml library;
  std::unique_lock lock{mutex_};
  while (!stopped_) {
    std::vector<std::string> names;
    for (const auto& [name, use] : last_)
      names.push_back(name);
    lock.unlock();
    std::map<std::string, protocol::gpu_use> seen;
    for (const auto& name : names)
      seen[name] = library.use_of(name).value_or(protocol::gpu_use{});
    lock.lock();
    for (auto& [name, use] : seen)
      last_[name] = std::move(use);
    stop_.wait_for(lock, pause, [this] { return stopped_; });
  }
}

} // namespace troupe::node_agent
