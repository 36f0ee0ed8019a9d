#pragma once

#include "engine/codec/error.hpp"

#include "cuda/kernels/threads.hpp"

#include <cstddef>
#include <cstdint>
#include <cuda_runtime.h>
#include <memory>
#include <stdexcept>
#include <string>

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

  void* allocate(std::size_t bytes);
  void release(void* memory);
  void zero(void* memory, std::size_t bytes);
  void copy_in(void* to, const void* from, std::size_t bytes);
  /// Waits for all that was launched.
  void copy_out(void* to, const void* from, std::size_t bytes);

  std::size_t free_bytes();
  std::size_t all_bytes();

#ifdef __CUDACC__
  template <class Kernel>
  void launch(const launch_shape& shape, const Kernel& kernel);
#endif

private:
  gpu_device() = default;

  int number_ = 0;
  std::string name_, description_;
  std::int64_t blocks_wanted_ = 0;
  cudaStream_t stream_ = nullptr;
};

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
  __device__ std::uint64_t add(std::uint64_t* word, std::uint64_t x) const {
    using number = unsigned long long;
    return atomicAdd(reinterpret_cast<number*>(word), static_cast<number>(x));
  }
};

template <class Kernel>
__global__ void run_kernel(Kernel kernel) {
  gpu_thread thread;
  kernel(thread);
}

template <class Kernel>
void gpu_device::launch(const launch_shape& shape, const Kernel& kernel) {
  run_kernel<<<dim3{shape.blocks_x, shape.blocks_y}, shape.threads,
               shape.shared_floats * sizeof(float), stream_>>>(kernel);
  if (auto why = cudaGetLastError(); why != cudaSuccess)
    throw gpu_failure{"a kernel could not be launched", why};
}

#endif

} // namespace troupe::cuda
