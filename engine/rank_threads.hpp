#pragma once

#include "engine/codec/error.hpp"
#include "engine/ops/thread_group.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace troupe::engine {

/// The ranks of a model but the first, on threads of this process. The group
/// ends with the first that fails.
class rank_threads {
public:
  /// `serve(rank)` is called on a thread for each.
  rank_threads(std::shared_ptr<ops::thread_group> group,
               std::function<result<void>(std::uint32_t)> serve);

  /// Ends the group and waits for all.
  ~rank_threads();

  rank_threads(const rank_threads&) = delete;
  rank_threads& operator=(const rank_threads&) = delete;

  const std::shared_ptr<ops::thread_group>& group() const {
    return group_;
  }

private:
  void run(std::uint32_t rank);

  std::shared_ptr<ops::thread_group> group_;
  std::function<result<void>(std::uint32_t)> serve_;
  std::vector<std::thread> threads_;
};

} // namespace troupe::engine
