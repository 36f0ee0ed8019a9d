#pragma once

#include "cuda/runtime/gpu.hpp"

#include <cstddef>
#include <cstdint>
#include <type_traits>

// How a GPU runs a kernel. Only the files of this folder include it, each of
// which has nvcc compile some of the kernels: several at once on several cores.

/// A kernel that `gpu_device::launch` can be called with. What is missing is
/// found when the module is linked.
#define TROUPE_COMPILED(...)                                                   \
  template void troupe::cuda::gpu_device::launch(                              \
      const troupe::cuda::launch_shape& shape, const __VA_ARGS__& kernel)

namespace troupe::cuda {

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
  __device__ bool arrive(std::uint32_t* word, std::uint32_t all) const {
    std::uint32_t before; // "inc" is 0 after its bound
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(__cvta_generic_to_global(word)), "r"(all - 1)
                 : "memory");
    return before == all - 1;
  }
  __device__ std::int32_t look_up(const std::int32_t* word) const {
    return __ldcg(word);
  }
  __device__ void pause() const {
    constexpr unsigned nanoseconds = 20;
    __nanosleep(nanoseconds);
  }
  __device__ void wait_for_earlier() const {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
  }
  /// The next launch may begin where there is room for its blocks: it waits for
  /// all of this one (programmatic dependent launch, sm_90 and later).
  __device__ void let_next_begin() const {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
  }
};

template <class Kernel>
__device__ void run_thread(const Kernel& kernel) {
  gpu_thread thread;
  thread.let_next_begin();
  if constexpr (!requires { Kernel::waits_itself; })
    thread.wait_for_earlier();
  kernel(thread);
}

template <class Kernel>
__global__ void run_kernel(Kernel kernel) {
  run_thread(kernel);
}

/// As many blocks at once bound a thread's registers.
template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads, Kernel::blocks_at_once)
    run_bounded_kernel(Kernel kernel) {
  run_thread(kernel);
}

template <class Kernel>
constexpr auto entry_of() {
  if constexpr (requires { Kernel::blocks_at_once; })
    return &run_bounded_kernel<Kernel>;
  else
    return &run_kernel<Kernel>;
}

/// Whether the kernel's code that runs here was compiled to wait for earlier
/// launches: a GPU that can begin early may run code for older ones. Of the
/// first GPU that asks, of all.
template <class Kernel>
bool waits_for_earlier() {
  static const bool out = [] {
    constexpr int hopper = 90; // run_thread waits from there on
    cudaFuncAttributes about{};
    if (cudaFuncGetAttributes(&about, entry_of<Kernel>()) == cudaSuccess)
      return about.ptxVersion >= hopper;
    cudaGetLastError(); // a launch will say what is wrong
    return false;
  }();
  return out;
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
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t how{};
  how.gridDim = dim3{shape.blocks_x, shape.blocks_y};
  how.blockDim = shape.threads;
  how.dynamicSmemBytes = shared;
  how.stream = stream_;
  how.attrs = &early;
  how.numAttrs = launches_early_ && waits_for_earlier<Kernel>() ? 1 : 0;
  if (auto why = cudaLaunchKernelEx(&how, run, kernel); why != cudaSuccess) {
    cudaGetLastError(); // it is told here
    throw gpu_failure{"a kernel could not be launched", why};
  }
}

} // namespace troupe::cuda
