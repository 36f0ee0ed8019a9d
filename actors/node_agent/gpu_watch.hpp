#pragma once

#include "actors/protocol/cluster_messages.hpp"

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace troupe::node_agent {

/// What is used of GPUs, looked at every second by a thread of its own, since a
/// driver may take its time. The thread is there from the first GPU on.
class gpu_watch {
public:
  gpu_watch() = default;
  gpu_watch(const gpu_watch&) = delete;
  gpu_watch& operator=(const gpu_watch&) = delete;
  ~gpu_watch();

  /// From now on these are looked at, as CUDA_VISIBLE_DEVICES names them.
  void look_at(const std::vector<std::string>& names);

  /// The last look at each of these that was one; at the first, none.
  std::vector<protocol::gpu_use>
  of(const std::vector<std::string>& names) const;

private:
  void run();

  mutable std::mutex mutex_;
  std::condition_variable stop_;
  bool stopped_ = false;
  std::map<std::string, protocol::gpu_use> last_; ///< unknown: nothing in total
  std::thread thread_;
};

} // namespace troupe::node_agent
