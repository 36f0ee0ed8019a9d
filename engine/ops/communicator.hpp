#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace troupe::ops {

/// What the ranks of one model hand each other. All ranks make the same calls
/// in the same order, each on a thread of its own; a call returns when this
/// rank has its result. Pointers are the backend's memory.
class communicator {
public:
  virtual ~communicator() = default;

  virtual std::int32_t rank() const = 0;
  virtual std::int32_t size() const = 0;

  /// x[i] = the sum of all ranks' x[i], added in the order of ranks from 0 on,
  /// whatever n is: the same bits on all ranks, and for a row in any company.
  virtual void all_reduce(float* x, std::int64_t n) = 0;

  /// Each rank has `cols` columns of `rows` rows, one after the other in x;
  /// out[r][rank * cols + c] = that rank's x[r][c], on all ranks.
  virtual void all_gather(const float* x, std::int64_t rows, std::int64_t cols,
                          float* out) = 0;
};

/// Ranks that are threads of this process, over the host's memory. One per
/// rank, in order; they keep what they share alive.
std::vector<std::unique_ptr<communicator>>
make_thread_communicators(std::int32_t size);

} // namespace troupe::ops
