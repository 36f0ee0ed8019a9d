#pragma once

#include "engine/ops/gloo/gloo_wait.hpp"
#include "engine/ops/thread_group.hpp"

#include <gloo/context.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace troupe::ops {

/// Notices that another process with ranks is gone, which a rank that waits for
/// a GPU does not: then the group ends. Who ends as it should says so first.
/// The first rank of each process has one.
class process_watch {
public:
  /// `others`: the first ranks of the other processes.
  process_watch(std::shared_ptr<gloo::Context>, std::shared_ptr<thread_group>,
                std::vector<int> others);

  /// If the group has not ended, the others are told that nothing is wrong.
  ~process_watch();

  process_watch(const process_watch&) = delete;
  process_watch& operator=(const process_watch&) = delete;

private:
  void run();
  void say_goodbye();

  std::shared_ptr<gloo::Context> context_;
  std::shared_ptr<thread_group> group_;
  std::vector<int> others_;
  gloo_wait wait_;
  std::atomic<bool> is_over_ = false;
  std::thread thread_;
};

} // namespace troupe::ops
