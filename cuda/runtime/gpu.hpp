#pragma once

#include "engine/codec/error.hpp"

#include "cuda/kernels/numbers.hpp"
#include "cuda/runtime/cublas_lt.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cuda_runtime.h>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace troupe::cuda {

/// A call of CUDA that failed. The device's context is lost with it as a rule.
class gpu_failure : public std::runtime_error {
public:
  gpu_failure(const char* doing, cudaError_t why);
};

/// One GPU of this process, with one stream. Everything but `open` throws
/// gpu_failure, and `allocate` std::bad_alloc if memory is lacking.
class gpu_device {
public:
  /// The device with this number, of those that CUDA_VISIBLE_DEVICES leaves.
  static result<std::unique_ptr<gpu_device>> open(int number);

  ~gpu_device();
  gpu_device(const gpu_device&) = delete;
  gpu_device& operator=(const gpu_device&) = delete;

  /// "sm90-cuda13": equal ones compute equal bits.
  const std::string& name() const {
    return name_;
  }
  /// "NVIDIA H200, sm90-cuda13"
  const std::string& description() const {
    return description_;
  }

  /// So many blocks of a launch keep it busy: four per multiprocessor.
  std::int64_t blocks_wanted() const {
    return blocks_wanted_;
  }

  /// Of shared memory that a block can have at most.
  std::size_t shared_bytes_most() const {
    return shared_bytes_most_;
  }

  void* allocate(std::size_t bytes);
  void release(void* memory);
  void zero(void* memory, std::size_t bytes);
  /// What is copied may change at once.
  void copy_in(void* to, const void* from, std::size_t bytes);
  /// Waits for all that was launched.
  void copy_out(void* to, const void* from, std::size_t bytes);

  // -- between the ranks' devices ---------------------------------------------

  /// `from` may be the memory of another GPU of this process.
  void copy_within(void* to, const void* from, std::size_t bytes);
  /// For all that was launched.
  void wait();
  cudaStream_t stream() const {
    return stream_;
  }
  /// "0000:3b:00.0"
  std::string bus_id() const;
  int number() const {
    return number_;
  }
  /// Its kernels may read and write the memory of another GPU of this process
  /// from now on; false: they cannot.
  bool reach(int other);
  /// Memory that other GPUs' kernels use too; it may outlive this one.
  std::shared_ptr<void> allocate_shared(std::size_t bytes);
  /// What was launched does not wait for somebody who waits for it.
  void go_on() {
    // nop
  }
  // -- what does not wait -----------------------------------------------------

  /// Memory of the host from which and to which the GPU copies by itself.
  void* allocate_host(std::size_t bytes);
  void release_host(void* memory);
  void send(void* to, const void* from_host, std::size_t bytes);
  void receive(void* to_host, const void* from, std::size_t bytes);

  /// A place in the stream.
  class event {
  public:
    explicit event(gpu_device& device);
    ~event();
    event(const event&) = delete;
    event& operator=(const event&) = delete;

  private:
    friend class gpu_device;
    cudaEvent_t of_cuda_ = nullptr;
  };
  void record(event& here);
  /// Returns at once where it was never recorded.
  void wait(const event& there);
  /// Between two that it has passed.
  double seconds_between(const event& from, const event& to);

  /// Launches with their arguments, to be launched together.
  class graph {
  public:
    graph(graph&& other) noexcept;
    graph& operator=(graph&& other) noexcept;
    ~graph();

  private:
    friend class gpu_device;
    explicit graph(cudaGraphExec_t of_cuda) : of_cuda_(of_cuda) {
      // nop
    }
    cudaGraphExec_t of_cuda_ = nullptr;
  };
  /// Nothing that `calls` launch runs now.
  /// Nothing, if it cannot be made.
  std::optional<graph> capture(const std::function<void()>& calls);
  void launch(const graph& what);

  // -- products of NVIDIA's library
  // --------------------------------------------

  std::string library() const {
    return products_->name();
  }
  std::vector<product_algorithm> product_algorithms(const product_shape& shape,
                                                    std::size_t workspace) {
    choose();
    return products_->algorithms(shape, workspace);
  }
  bool multiply(const product_algorithm& algorithm, const product& what) {
    choose();
    return products_->multiply(algorithm, what, stream_);
  }

  /// Of one f, nothing if that says that it cannot: the best of a few means,
  /// after a first run.
  template <class F>
  std::optional<double> seconds(F f);

  std::size_t free_bytes();
  std::size_t all_bytes();

  /// Defined where kernels are compiled (cuda/compiled/).
  template <class Kernel>
  void launch(const launch_shape& shape, const Kernel& kernel);

private:
  gpu_device() = default;

  /// CUDA keeps for each thread which GPU its calls are for, and calls may come
  /// from another thread than the one that opened this.
  void choose() const;

  /// What the stream has done until now, to be waited for.
  void mark(cudaEvent_t event);
  double seconds_between(cudaEvent_t from, cudaEvent_t to);

  int number_ = 0;
  std::string name_, description_;
  std::int64_t blocks_wanted_ = 0;
  std::size_t shared_bytes_most_ = 0;
  /// Launches may begin before those before them are over (threads.hpp), unless
  /// TROUPE_CUDA_EARLY_LAUNCHES is 0: to measure what that is worth.
  bool launches_early_ = false;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::unique_ptr<cublas_lt> products_;
};

template <class F>
std::optional<double> gpu_device::seconds(F f) {
  if (!f())
    return std::nullopt;
  const auto mean_of = [&](int times) {
    mark(begin_);
    for (int i = 0; i < times; ++i)
      f();
    mark(end_);
    return seconds_between(begin_, end_) / times;
  };
  // As many as take some milliseconds.
  constexpr double enough_s = 2e-3;
  auto best = mean_of(1);
  const auto times = static_cast<int>(std::clamp(enough_s / best, 1.0, 64.0));
  for (int run = 0; run < 3; ++run)
    best = std::min(best, mean_of(times));
  return best;
}

} // namespace troupe::cuda
