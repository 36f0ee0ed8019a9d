#pragma once

#include "engine/ops/communicator.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace troupe::ops {

/// Where ranks meet that are threads of one process: all ranks, or some. From
/// its end on, all waits, also those under way, throw rank_lost with the
/// reason.
class thread_group {
public:
  /// A rank that is not here for so long, where it is due, is lost.
  static constexpr std::chrono::milliseconds usual_timeout{60'000};

  explicit thread_group(std::int32_t size,
                        std::chrono::milliseconds timeout = usual_timeout);

  std::int32_t size() const {
    return size_;
  }

  std::chrono::milliseconds timeout() const {
    return timeout_;
  }

  enum class patience : std::uint8_t { timed, endless };

  /// Returns when all ranks are here. What each has written before, all may
  /// read after.
  void meet(patience = patience::timed);

  /// Some rank cannot go on. The first reason counts. Any thread.
  void end(const std::string& why) noexcept;

  /// Throws if it has ended. Any thread.
  void check() const;

  /// Returns when it has ended. Any thread.
  void wait_for_end();

  /// `then` is called once when it ends, by whoever ends it, or now; it must
  /// not call the group. Until `forget`, which waits for a call under way.
  std::uint64_t at_end(std::function<void()> then);
  void forget(std::uint64_t listener);

  /// What ranks show each other between two meetings, by rank.
  std::vector<const void*> shown;
  std::vector<std::string> said;
  std::vector<std::byte> bytes; ///< rank 0's
  std::vector<float> sums;

  /// Memory that other ranks read by themselves, by rank: it is there as long
  /// as one of them has the group.
  std::vector<std::shared_ptr<void>> rooms;

private:
  void throw_if_ended() const; // the mutex is held

  const std::int32_t size_;
  const std::chrono::milliseconds timeout_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::int32_t here_ = 0;
  std::uint64_t meetings_ = 0; ///< that are over
  bool has_ended_ = false;
  std::string why_;

  std::mutex listeners_mutex_;
  std::map<std::uint64_t, std::function<void()>> listeners_;
  std::uint64_t listeners_so_far_ = 0;
};

/// One of the ranks, over the host's memory. The group ends with the first of
/// them that is destroyed.
std::unique_ptr<communicator>
make_thread_communicator(std::shared_ptr<thread_group>, std::int32_t rank);

} // namespace troupe::ops
