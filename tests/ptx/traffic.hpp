#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace troupe::ptx {

/// What an access of a warp costs beside what it would at least.
struct traffic {
  std::uint64_t paid = 0;
  std::uint64_t least = 0;

  traffic& operator+=(const traffic& other) {
    paid += other.paid;
    least += other.least;
    return *this;
  }
};

// `addresses` are those of the lanes of `mask`, `bytes` of each, 1 to 16 and
// aligned to that (others of the span do not count). From the CUDA C++ best
// practices guide, as of sm_70 to sm_90.

/// Sectors of 32 bytes of global memory that are moved; at least as many as
/// hold the bytes.
traffic sectors_of(std::span<const std::uint64_t> addresses, std::uint32_t mask,
                   std::size_t bytes);

/// Turns of the 32 banks of shared memory, each of which gives a word of 4
/// bytes a turn; 8 lanes at a time have 16 bytes each, 16 have 8, 32 less. At
/// least as many as the words would take side by side.
traffic turns_of(std::span<const std::uint64_t> addresses, std::uint32_t mask,
                 std::size_t bytes);

} // namespace troupe::ptx
