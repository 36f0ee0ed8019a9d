#pragma once

#include "engine/ops/communicator.hpp"

#include <gloo/transport/unbound_buffer.h>

#include <chrono>
#include <cstddef>
#include <mutex>
#include <utility>

namespace troupe::ops {

/// Waits of one thread for what a buffer of Gloo receives and sends, which
/// another thread can end.
class gloo_wait {
public:
  /// Throws rank_lost if it was given up, and what Gloo throws.
  void run(gloo::transport::UnboundBuffer& buffer, std::size_t receives,
           std::size_t sends, std::chrono::milliseconds timeout) {
    const place here{*this, buffer};
    for (; receives > 0; --receives)
      if (!buffer.waitRecv(timeout))
        given_up();
    for (; sends > 0; --sends)
      if (!buffer.waitSend(timeout))
        given_up();
  }

  /// The wait under way, if there is one, and all later ones. Any thread.
  void give_up() {
    std::lock_guard lock{mutex_};
    has_given_up_ = true;
    if (under_way_ == nullptr)
      return;
    under_way_->abortWaitRecv();
    under_way_->abortWaitSend();
  }

private:
  [[noreturn]] static void given_up() {
    throw rank_lost{"the wait for other ranks is given up"};
  }

  /// The buffer is known while it is waited for.
  struct place {
    place(gloo_wait& of, gloo::transport::UnboundBuffer& buffer) : of_(of) {
      std::lock_guard lock{of_.mutex_};
      if (of_.has_given_up_)
        given_up();
      of_.under_way_ = &buffer;
    }
    ~place() {
      std::lock_guard lock{of_.mutex_};
      of_.under_way_ = nullptr;
    }
    place(const place&) = delete;
    place& operator=(const place&) = delete;
    gloo_wait& of_;
  };

  std::mutex mutex_;
  bool has_given_up_ = false;
  gloo::transport::UnboundBuffer* under_way_ = nullptr;
};

} // namespace troupe::ops
