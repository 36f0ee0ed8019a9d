#pragma once

#include <cstddef>
#include <cstdint>

// Kernels are written once and run by two executors: the GPU, and an emulator
// on the CPU that tests use (cuda/runtime/emulated.hpp).
//
// A kernel is a plain struct of its arguments with
//
//   static constexpr bool collective = ...; // whether its threads wait for
//                                           // each other
//   template <class Threads>
//   TROUPE_KERNEL void operator()(Threads& t) const;
//
// which every thread of every block runs. Beside it there may be
//
//   static constexpr unsigned threads = ...; // of its blocks
//   static constexpr unsigned blocks_at_once = ...; // that there are registers
//                                                   // for, per multiprocessor
//   static constexpr bool waits_itself = ...; // it calls wait_for_earlier
//
// A launch may begin before those before it are over; then its threads wait for
// them before the kernel begins, unless that waits itself, which every thread
// has to do once: until then it reads only what no launch writes, such as
// weights, and writes nothing.
//
// `Threads` has
//
//   index(), count()      of this thread in its block, and how many there are
//   block_x(), block_y()  which block this is
//   shared()              floats of the block, of the size that was launched
//   sync()                waits for all threads of the block
//   warp_sum(x), warp_max(x)  over the 32 threads of a warp, in a fixed order
//   quad_max(x)           over the threads 4 i to 4 i + 3 of a warp
//   multiply_add(sums, a, b)  sums += a b over a warp (the type `fragments`)
//   add(word, x)          adds to a word, of shared memory or the device's, to
//                         which others may add at the same time; gives what was
//                         there
//   store_release(word, x), load_acquire(word)
//                         a word that other devices, or the host, read and
//                         write at the same time: who loads what was stored
//                         sees what was written before, by the block up to its
//                         last sync
//   pause()               between two looks at such a word
//   look_up(word)         as the memory has it, which a copy may have changed
//                         since this multiprocessor read it: for launches that
//                         have not waited
//   arrive(word, all)     counts at a word of the device's memory, as a thread
//                         of each of `all` blocks of a launch does; whether it
//                         is the last. What the others' blocks wrote up to
//                         their last sync its block sees after a sync. The word
//                         is 0 before the first and after the last.
//   wait_for_earlier()    until all that was launched before is over
//
//   round_pair(low, high) two floats as f16 in one word, rounded to even
//   widen_pair(codes)     two e4m3 in 16 bits as f16 in one word
//   copy_async(to, from, is_there)  begins to copy 16 bytes to shared memory,
//                         from and to multiples of 16; zeros if `is_there` is
//                         false
//   commit_copies()       those that this thread began since the last call are
//                         one group
//   wait_copies<Left>()   until all groups of this thread but the last `Left`
//                         are there; others see them after a sync
//
// All threads of a block make the same calls of sync, in the same order, and
// those of a warp the same of warp_sum, warp_max, quad_max and multiply_add
// between two of sync. `count()` is a multiple of 32.

// TROUPE_UNROLL before a loop keeps the arrays that it indexes in registers;
// TROUPE_NO_UNROLL keeps its code short.

#ifdef __CUDACC__
#define TROUPE_KERNEL __device__ __forceinline__
#define TROUPE_UNROLL _Pragma("unroll")
#define TROUPE_NO_UNROLL _Pragma("unroll 1")
#else
#define TROUPE_KERNEL inline
#define TROUPE_UNROLL
#define TROUPE_NO_UNROLL
#endif

namespace troupe::cuda {

inline constexpr unsigned warp_size = 32;

/// What a lane of a warp holds of the matrices of one `multiply_add`: of a, 16
/// rows of 16 numbers, of b, 16 rows of 8, and of their product, 16 rows of 8
/// floats. Numbers are f16 or bf16, two to a word, the first in its lower half.
/// With g = lane / 4 and t = lane % 4 a lane holds
///
///   a    [g][2t, 2t+1], [g+8][2t, 2t+1], [g][2t+8, 2t+9], [g+8][2t+8, 2t+9]
///   b    [2t, 2t+1][g], [2t+8, 2t+9][g]
///   sums [g][2t], [g][2t+1], [g+8][2t], [g+8][2t+1]
///
/// (PTX ISA, mma.m16n8k16). Products are exact; a sum's order is the device's,
/// the same for all 16 * 8 sums.
struct fragments {
  using a = std::uint32_t[4];
  using b = std::uint32_t[2];
  using sums = float[4];
};

/// The blocks of a launch, and what each has.
struct launch_shape {
  unsigned blocks_x = 1;
  unsigned blocks_y = 1;
  unsigned threads = 128;
  std::size_t shared_floats = 0;
};

/// Shared floats that `block_sum` and `block_max` need.
template <class Threads>
TROUPE_KERNEL unsigned warps_of(Threads& t) {
  return t.count() / warp_size;
}

/// The sum over all threads, for all of them. `scratch` is of shared memory and
/// has a float per warp. Warps are added in order.
template <class Threads>
TROUPE_KERNEL float block_sum(Threads& t, float x, float* scratch) {
  x = t.warp_sum(x);
  t.sync(); // the scratch may still be read
  if (t.index() % warp_size == 0)
    scratch[t.index() / warp_size] = x;
  t.sync();
  float out = scratch[0];
  for (unsigned w = 1; w < warps_of(t); ++w)
    out += scratch[w];
  return out;
}

template <class Threads>
TROUPE_KERNEL float block_max(Threads& t, float x, float* scratch) {
  x = t.warp_max(x);
  t.sync();
  if (t.index() % warp_size == 0)
    scratch[t.index() / warp_size] = x;
  t.sync();
  float out = scratch[0];
  for (unsigned w = 1; w < warps_of(t); ++w)
    out = scratch[w] > out ? scratch[w] : out;
  return out;
}

} // namespace troupe::cuda
