#pragma once

#include "tests/ptx/traffic.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

// A machine for tests that runs the kernels that nvcc compiled, on the CPU: an
// interpreter of PTX (PTX ISA 9.0, of which the instructions that our kernels
// have and their near relatives; another is a fault when it is read). It knows
// nothing of the emulator (cuda/runtime/emulated.hpp), so that each may say
// that the other is wrong.
//
// Warps run as the ISA has them: one instruction for all its active threads.
// Threads that parted run smallest address first until they meet. The warps of
// a block take turns, blocks run one after the other.
//
// It is strict where a GPU may let an error pass. A fault is
//
// - an access outside what the space has, to what is not a multiple of its
//   size, or to two allocations at once
// - shared memory: a read of what nobody wrote in this block, and two accesses
//   of different warps to a byte, one of them a write, with no barrier between
//   (two atomic ones may); lanes that write different values to a byte at once;
//   any access to what an asynchronous copy will write before it was waited
//   for. (Lanes of one warp are not told apart from one instruction to the
//   next.)
// - a barrier, or an instruction for a whole warp, at which a thread is
// missing;
//   threads that have ended are missing too
// - a register that was never written, where its value decides about a branch,
//   an address or an operation of the warp, or comes to global memory
// - a thread that ends before it has waited for its asynchronous copies
// - in a launch that begins early: a thread that reads what an earlier launch
//   writes, or writes anything, before it has waited (griddepcontrol.wait), and
//   one that ends without having waited
//
// Asynchronous copies read their source when they are waited for.
//
// Where the ISA leaves the result to the device: products of matrices are
// summed up in double and rounded once; ex2, lg2, rcp, rsqrt, sqrt, sin, cos
// and tanh .approx are computed in double and rounded, div.approx too. So a
// GPU's results may differ from them in the last bits.

namespace troupe::ptx {

/// Says the kernel, the line of the text, the block and the thread, and what is
/// wrong.
class fault : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

struct decoded_body;

/// An entry of a program, which owns it.
struct kernel {
  struct parameter {
    std::size_t offset, bytes;
  };

  std::string name;
  std::vector<parameter> parameters;
  std::size_t parameter_bytes = 0;
  /// Of shared memory that it declares itself.
  std::size_t shared_bytes = 0;
  /// Of each block: as it was compiled for (.maxntid), or 1024.
  unsigned threads_most = 1024;
  std::shared_ptr<const decoded_body> body;
};

/// A text of PTX. May be used by several threads; its variables (.global,
/// .const) are shared by all runs, as on a device.
class program {
public:
  /// Reads what is around the bodies. Throws fault.
  static program parse(std::string text);

  program(program&& other) noexcept;
  program& operator=(program&& other) noexcept;
  ~program();

  /// Null if there is no entry of this (mangled) name. Reads its body the first
  /// time; throws fault.
  const kernel* find(std::string_view name) const;

  /// Of all entries, as the text has them.
  std::vector<std::string> names() const;

  struct contents;

private:
  explicit program(std::unique_ptr<contents> all);
  std::unique_ptr<contents> all_;
};

/// What kernels may touch of this process's memory, at its own addresses. May
/// be used by several threads, also while kernels run.
class memory {
public:
  memory();
  ~memory();
  memory(const memory&) = delete;
  memory& operator=(const memory&) = delete;

  /// Throws std::invalid_argument if a part of it was added already.
  void add(const void* at, std::size_t bytes);
  /// The whole that was added at `at`; throws std::invalid_argument.
  void remove(const void* at);

  struct contents;
  const contents& all() const {
    return *all_;
  }

private:
  std::unique_ptr<contents> all_;
};

/// What launches write that may run still when a later one begins (programmatic
/// dependent launch): words of 4 bytes of global memory, by sector.
class unfinished_writes {
public:
  void add(std::uint64_t address, std::size_t bytes);
  void add(const void* at, std::size_t bytes) {
    add(reinterpret_cast<std::uint64_t>(at), bytes);
  }
  bool touch(std::uint64_t address, std::size_t bytes) const;
  /// All of those launches are over.
  void clear() {
    if (!words_.empty())
      words_ = {}; // an empty map of many buckets is slow to clear again
  }

private:
  std::unordered_map<std::uint64_t, unsigned> words_; ///< a bit each
};

/// As cudaLaunchKernel has it.
struct launch {
  unsigned blocks[3] = {1, 1, 1};
  unsigned threads[3] = {1, 1, 1};
  std::size_t shared_bytes = 0; ///< beside those that the kernel declares
  void* const* arguments = nullptr;
  bool counts_traffic = false; ///< it takes time
  /// Of the launches before, to which what this one writes is added.
  unfinished_writes* unfinished = nullptr;
  bool begins_early = false; ///< perhaps before they are over
};

/// Of shared memory that a block can have (sm_90).
inline constexpr std::size_t shared_bytes_most = 227 << 10;

/// What was done.
struct work_done {
  /// Of warps; one for a whole warp, at which its lanes arrive apart, is
  /// counted each time.
  std::uint64_t instructions = 0;
  std::uint64_t lane_instructions = 0; ///< of threads
  std::uint64_t products = 0;          ///< of matrices
  // If traffic is counted:
  traffic loaded; ///< sectors of global memory, asynchronous copies too
  traffic stored;
  traffic shared; ///< turns of shared memory's banks

  work_done& operator+=(const work_done& other);
};

/// Runs all blocks to their end. Throws fault.
work_done run(const kernel& what, const launch& how, memory& where);

} // namespace troupe::ptx
