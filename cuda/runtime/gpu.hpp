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

#ifdef __CUDACC__
  template <class Kernel>
  void launch(const launch_shape& shape, const Kernel& kernel);
#endif

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

#ifdef __CUDACC__

/// What a kernel sees of its thread (cuda/kernels/threads.hpp).
struct gpu_thread {
  __device__ unsigned index() const {
    return threadIdx.x;
  }
  __device__ unsigned count() const {
    return blockDim.x;
  }
  __device__ unsigned block_x() const {
    return blockIdx.x;
  }
  __device__ unsigned block_y() const {
    return blockIdx.y;
  }
  __device__ float* shared() const {
    extern __shared__ __align__(16) float of_the_block[];
    return of_the_block;
  }
  __device__ void sync() const {
    __syncthreads();
  }
  __device__ float warp_sum(float x) const {
    for (unsigned step = warp_size / 2; step > 0; step /= 2)
      x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
  }
  __device__ float warp_max(float x) const {
    for (unsigned step = warp_size / 2; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, x, step);
      x = x > other ? x : other;
    }
    return x;
  }
  __device__ float quad_max(float x) const {
    for (unsigned step = 2; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, x, step);
      x = x > other ? x : other;
    }
    return x;
  }
  __device__ std::uint32_t round_pair(float low, float high) const {
    std::uint32_t out;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
  }
  __device__ std::uint32_t widen_pair(std::uint16_t codes) const {
#if __CUDA_ARCH__ >= 890
    std::uint32_t out;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(out) : "h"(codes));
    return out;
#else
    return halves_of(codes);
#endif
  }
  __device__ void copy_async(void* to, const void* from, bool is_there) const {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     static_cast<std::uint32_t>(__cvta_generic_to_shared(to))),
                 "l"(__cvta_generic_to_global(from)), "r"(is_there ? 16 : 0)
                 : "memory");
  }
  __device__ void commit_copies() const {
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  template <unsigned Left>
  __device__ void wait_copies() const {
    asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
  }
  /// `Stored`: f16 or bf16.
  template <class Stored>
  __device__ void multiply_add(fragments::sums& sums, const fragments::a& a,
                               const fragments::b& b) const {
    if constexpr (std::is_same_v<Stored, f16>)
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
  __device__ std::uint64_t add(std::uint64_t* word, std::uint64_t x) const {
    using number = unsigned long long;
    return atomicAdd(reinterpret_cast<number*>(word), static_cast<number>(x));
  }
  __device__ void store_release(std::uint32_t* word, std::uint32_t x) const {
    asm volatile("st.release.sys.u32 [%0], %1;" ::"l"(word), "r"(x) : "memory");
  }
  __device__ std::uint32_t load_acquire(const std::uint32_t* word) const {
    std::uint32_t out;
    asm volatile("ld.acquire.sys.u32 %0, [%1];"
                 : "=r"(out)
                 : "l"(word)
                 : "memory");
    return out;
  }
  __device__ void pause() const {
    constexpr unsigned nanoseconds = 20;
    __nanosleep(nanoseconds);
  }
};

template <class Kernel>
__global__ void run_kernel(Kernel kernel) {
  gpu_thread thread;
  kernel(thread);
}

/// As many blocks at once bound a thread's registers.
template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads, Kernel::blocks_at_once)
    run_bounded_kernel(Kernel kernel) {
  gpu_thread thread;
  kernel(thread);
}

template <class Kernel>
constexpr auto entry_of() {
  if constexpr (requires { Kernel::blocks_at_once; })
    return &run_bounded_kernel<Kernel>;
  else
    return &run_kernel<Kernel>;
}

template <class Kernel>
void gpu_device::launch(const launch_shape& shape, const Kernel& kernel) {
  constexpr auto run = entry_of<Kernel>();
  choose();
  // A block has as much shared memory unless more is allowed, which holds for
  // the kernel on this GPU from then on, whoever launches it.
  constexpr std::size_t unasked = 48 << 10;
  const auto shared = shape.shared_floats * sizeof(float);
  if (shared > unasked)
    if (auto why = cudaFuncSetAttribute(
            run, cudaFuncAttributeMaxDynamicSharedMemorySize,
            static_cast<int>(shared_bytes_most_));
        why != cudaSuccess)
      throw gpu_failure{"a kernel's shared memory could not be had", why};
  run<<<dim3{shape.blocks_x, shape.blocks_y}, shape.threads, shared, stream_>>>(
      kernel);
  if (auto why = cudaGetLastError(); why != cudaSuccess)
    throw gpu_failure{"a kernel could not be launched", why};
}

#endif

} // namespace troupe::cuda
