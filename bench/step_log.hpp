#pragma once

#include "engine/engine.hpp"

#include <condition_variable>
#include <functional>
#include <mutex>
#include <vector>

namespace troupe::bench {

struct seen_step {
  double at = 0; ///< seconds of the log's clock, on the engine's thread
  engine::stats now;
};

/// The steps that an engine told of, each with the time of its end.
class step_log {
public:
  using clock = double (*)();

  explicit step_log(clock of) : clock_(of) {
    // nop
  }

  void put(const engine::step_result& step) {
    {
      std::lock_guard guard{mutex_};
      steps_.push_back({clock_(), step.now});
    }
    changed_.notify_one();
  }

  /// Waits until `enough` says so of all steps since `clear`.
  std::vector<seen_step>
  wait(const std::function<bool(const std::vector<seen_step>&)>& enough) {
    std::unique_lock guard{mutex_};
    changed_.wait(guard, [&] { return enough(steps_); });
    return steps_;
  }

  /// Forgets all but the last, which the next one is measured from.
  void clear() {
    std::lock_guard guard{mutex_};
    if (steps_.size() > 1)
      steps_.erase(steps_.begin(), steps_.end() - 1);
  }

private:
  clock clock_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<seen_step> steps_;
};

} // namespace troupe::bench
