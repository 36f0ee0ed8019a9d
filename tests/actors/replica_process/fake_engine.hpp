#pragma once

#include "engine/engine.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace troupe::test {

namespace api = troupe::engine; // in the class, `engine` is its base

/// An engine whose tokens are known beforehand: after a prompt or output that
/// ends in t comes t + 1. A step of all choices takes `step_time`. While a
/// choice with the prompt {hang_prompt} runs, no step is made; a step with the
/// prompt {abort_prompt} ends the process, one with {endless_prompt} never
/// ends.
class fake_engine : public engine::engine {
public:
  static constexpr token_id hang_prompt = 1'000'000;
  static constexpr token_id abort_prompt = 1'000'001;
  static constexpr token_id endless_prompt = 1'000'002;

  explicit fake_engine(std::chrono::milliseconds step_time)
      : step_time_(step_time) {
    about_.arithmetic_class = "fake";
    about_.device = "none";
    about_.max_num_seqs = 16;
  }

  ~fake_engine() override {
    {
      std::lock_guard guard{mutex_};
      stop_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable())
      thread_.join();
  }

  const text::model_card& card() const override {
    return card_;
  }

  const api::description& about() const override {
    return about_;
  }

  void start(std::function<void(api::step_result&&)> on_step,
             api::step_watch* watch) override {
    on_step_ = std::move(on_step);
    watch_ = watch;
    thread_ = std::thread{[this] { run(); }};
  }

  void submit(api::request x) override {
    std::lock_guard guard{mutex_};
    auto id = x.id;
    running_.emplace(id, std::move(x));
    changed_.notify_all();
  }

  void cancel(std::uint64_t id) override {
    std::lock_guard guard{mutex_};
    cancelled_.insert(id);
    changed_.notify_all();
  }

  api::stats now() const override {
    std::lock_guard guard{mutex_};
    return gauge();
  }

private:
  void run() {
    std::unique_lock guard{mutex_};
    while (!stop_) {
      changed_.wait(guard, [this] {
        return stop_ || !running_.empty() || !cancelled_.empty();
      });
      changed_.wait_for(guard, step_time_, [this] { return stop_; });
      if (stop_ || has(hang_prompt))
        continue;
      begin_step();
      if (has(endless_prompt)) {
        guard.unlock();
        while (true)
          std::this_thread::sleep_for(std::chrono::hours{1});
      }
      auto result = step();
      if (watch_)
        watch_->end();
      guard.unlock();
      on_step_(std::move(result));
      guard.lock();
    }
  }

  bool has(token_id prompt) const {
    for (const auto& [id, x] : running_)
      if (x.prompt == std::vector<token_id>{prompt})
        return true;
    return false;
  }

  void begin_step() {
    std::vector<api::owner> owners;
    for (const auto& [id, x] : running_)
      owners.push_back(x.whose);
    if (watch_)
      watch_->begin(owners);
    if (has(abort_prompt))
      std::abort();
  }

  api::step_result step() {
    ++steps_;
    api::step_result out;
    for (auto i = running_.begin(); i != running_.end();) {
      auto& x = i->second;
      auto& news = out.outputs.emplace_back();
      news.id = x.id;
      if (cancelled_.contains(x.id)) {
        news.finish = api::finish_reason::cancelled;
      } else {
        auto last = x.resume.empty() ? x.prompt.back() : x.resume.back();
        x.resume.push_back(last + 1);
        news.tokens = {last + 1};
        if (x.resume.size() >= x.params.max_tokens)
          news.finish = api::finish_reason::length;
      }
      i = news.finish == api::finish_reason::none ? std::next(i)
                                                  : running_.erase(i);
    }
    cancelled_.clear();
    out.now = gauge();
    return out;
  }

  api::stats gauge() const {
    api::stats x;
    x.steps = steps_;
    x.running = static_cast<std::uint32_t>(running_.size());
    return x;
  }

  std::chrono::milliseconds step_time_;
  text::model_card card_;
  api::description about_;
  std::function<void(api::step_result&&)> on_step_;
  api::step_watch* watch_ = nullptr;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, api::request> running_;
  std::set<std::uint64_t> cancelled_;
  std::uint64_t steps_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

} // namespace troupe::test
