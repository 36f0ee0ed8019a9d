#pragma once

#include "tests/ptx/machine.hpp"

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

// Devices that are none: their memory is the host's, their kernels are PTX that
// is interpreted (tests/ptx), and each of their streams is a thread.

namespace troupe::interpreted {

/// Of an H200, but for its memory and the number of multiprocessors: the more
/// there are, the more blocks are asked for.
struct device_facts {
  static constexpr const char* name = "PTX interpreter";
  static constexpr int major = 9, minor = 0;
  static constexpr int multiprocessors = 4;
  static constexpr std::size_t bytes = std::size_t{4} << 30;
  static constexpr std::size_t shared_unasked = 48 << 10;
  static constexpr std::size_t shared_most = ptx::shared_bytes_most;
  static constexpr std::size_t allocation_unit = 256;
};

class stream;

/// A device of this process. Everything may be called from any thread.
class device {
public:
  explicit device(int number) : number_(number) {
    // nop
  }

  int number() const {
    return number_;
  }

  /// nullptr if there is no room. What it holds is no number: who reads it
  /// before it is written sees that.
  void* allocate(std::size_t bytes);
  /// Whether that is what `allocate` gave.
  bool has(void* at) const;
  void release(void* at);
  /// Whether all of that lies in one allocation.
  bool holds(const void* at, std::size_t bytes) const;
  std::size_t free_bytes() const;

  /// Waits until all its streams have done what they were given.
  void finish();

  /// Its kernels may use the memory of `other` from now on.
  cudaError_t reach(device& other);

  /// What its kernels may use.
  ptx::memory& reached() {
    return reached_;
  }

  /// Once something has failed, everything fails, as after a fault of a GPU.
  void fail(cudaError_t why) {
    failure_.store(why);
  }
  cudaError_t failure() const {
    return failure_.load();
  }

private:
  friend class stream;

  const int number_;
  std::mutex streams_mutex_; // held while they are waited for
  std::vector<stream*> streams_;
  mutable std::mutex mutex_;
  std::map<void*, std::size_t> taken_;
  std::size_t taken_bytes_ = 0;
  std::vector<device*> who_reaches_;
  ptx::memory reached_;
  std::atomic<cudaError_t> failure_{cudaSuccess};
};

inline constexpr int devices_most = 8;

/// How many there are: INTERPRETED_GPUS, else 2, and no more than
/// CUDA_VISIBLE_DEVICES lists.
int device_count();
/// `number` is below device_count().
device& device_of(int number);
/// Whether all of that lies in one allocation of a device.
bool is_on_a_device(const void* at, std::size_t bytes);

/// Memory of the host that devices use by themselves.
void* allocate_pinned(std::size_t bytes);
bool release_pinned(void* at);
/// Whether all of that is such memory; a part of it alone is an error of who
/// copies.
bool is_pinned(const void* at, std::size_t bytes);
bool touches_pinned(const void* at, std::size_t bytes);

/// Something that a stream does; it may throw ptx::fault.
using work = std::function<void()>;

/// Does one thing after the other, by a thread of its own; or, while captured,
/// collects them. A launch that may begin early does not: that it could is
/// checked (ptx::launch).
class stream {
public:
  explicit stream(device& of);
  /// After all that it was given.
  ~stream();

  device& of() const {
    return of_;
  }

  /// Waits if there is much already, as CUDA does.
  cudaError_t add(work what);
  cudaError_t wait();
  /// For all that it was given; what is captured it was not.
  void drain();

  cudaError_t begin_capture();
  /// `out` is what was collected; the error of what may not be captured.
  cudaError_t end_capture(std::vector<work>& out);
  bool is_captured() const;
  /// Something was called that may not be while it is captured.
  cudaError_t spoil_capture();

  /// Within what a stream does: what its last launches write, one of which
  /// began perhaps before others were over.
  static ptx::unfinished_writes& unfinished();

private:
  static constexpr std::size_t most_waiting = 1024;

  void run();

  device& of_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<work> waiting_;
  bool is_busy_ = false, is_over_ = false;
  bool is_captured_ = false, is_spoiled_ = false;
  std::thread::id capturer_;
  std::vector<work> captured_;
  std::thread worker_; // last: it uses all of them
};

/// A place in a stream.
class event {
public:
  /// The stream has to pass what is returned.
  work record();
  void wait();
  /// And passed since.
  bool is_recorded() const;
  bool is_passed() const;
  double seconds_since(const event& other) const;

private:
  struct state;
  std::shared_ptr<state> state_ = make();
  static std::shared_ptr<state> make();
};

} // namespace troupe::interpreted
