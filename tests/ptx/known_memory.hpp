#pragma once

#include "tests/ptx/machine.hpp"

#include <atomic>
#include <cstdint>
#include <shared_mutex>
#include <vector>

namespace troupe::ptx {

/// Addresses, the last one left out.
struct range {
  std::uint64_t begin = 0, end = 0;

  bool holds(std::uint64_t first, std::uint64_t last) const {
    return first >= begin && last <= end;
  }
};

struct memory::contents {
  mutable std::shared_mutex lock;
  std::vector<range> ranges; ///< in order
  std::atomic<std::uint64_t> version = 1;
};

/// What one run knows of it.
class known_memory {
public:
  /// `variables`: of the program.
  known_memory(const memory::contents& all, const std::vector<range>& variables)
      : all_(all), variables_(variables) {
    // nop
  }

  /// The whole of what holds this address; empty if nothing does.
  range find(std::uint64_t address) const;

  /// Whether what was found before may be wrong now.
  bool read_changes() {
    if (all_.version.load(std::memory_order_acquire) == version_)
      return false;
    copy();
    return true;
  }

private:
  void copy();

  const memory::contents& all_;
  const std::vector<range>& variables_;
  std::vector<range> ranges_;
  std::uint64_t version_ = 0;
};

} // namespace troupe::ptx
