#pragma once

#include "engine/codec/error.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace troupe::ops::cpu {

/// A persistent team of threads that shares out loops. The caller works too and
/// takes over what a late thread has not begun, so a thread that gets no
/// processor delays a loop by at most the piece it holds. A thread without work
/// spins for some 50 us, then sleeps in the kernel.
///
/// One thread owns the team: it makes, runs and destroys it.
class team {
public:
  /// `threads` >= 1 counts the caller. Fails if a thread cannot be started.
  static result<std::unique_ptr<team>> make(int threads);

  ~team();
  team(const team&) = delete;
  team& operator=(const team&) = delete;

  int size() const {
    return static_cast<int>(shares_.size());
  }

  /// Calls body(begin, end, thread) for pieces that cover [0, count) once, in
  /// any order, on any thread; returns when all are done. `count` < 2^31.
  /// `body` must not throw.
  template <class Body>
  void run(std::int64_t count, Body&& body) {
    run_erased(count, {[](void* self, std::int64_t begin, std::int64_t end,
                          int thread) {
                         (*static_cast<std::remove_reference_t<Body>*>(self))(
                             begin, end, thread);
                       },
                       const_cast<void*>(static_cast<const void*>(&body))});
  }

private:
  struct job {
    void (*call)(void*, std::int64_t, std::int64_t, int) = nullptr;
    void* body = nullptr;
  };

  /// What of a loop is still to be begun, as (first << 32 | last). Its thread
  /// takes from the front, the others from the back.
  struct alignas(64) share {
    std::atomic<std::uint64_t> range{0};
  };

  explicit team(int threads) : shares_(threads) {
  }
  void run_erased(std::int64_t count, job);
  void work(int self);
  bool wait_for_loop(std::uint32_t& seen);
  bool enter();
  void leave();
  void wait_until_left();
  void take_pieces(int self);
  bool take(int owner, bool front, std::int64_t& begin, std::int64_t& end);

  std::vector<share> shares_;
  std::vector<std::thread> threads_;
  job job_;
  std::int64_t piece_ = 1;
  /// Grows with every loop; sleepers wait for it to change.
  alignas(64) std::atomic<std::uint32_t> loop_{0};
  /// Bit 31: the loop may be joined; the rest counts the threads inside.
  alignas(64) std::atomic<std::uint32_t> gate_{0};
  std::atomic<bool> stop_{false};
};

/// Cores that this process may run on, at least 1.
int usable_cores();

} // namespace troupe::ops::cpu
