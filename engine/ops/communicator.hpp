#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace troupe::ops {

/// Another rank is gone, or was not heard in time: what the ranks hold together
/// cannot be used any more.
class rank_lost : public std::runtime_error {
public:
  using std::runtime_error::runtime_error;
};

/// What the ranks of one model hand each other. All ranks make the same calls
/// in the same order, each on a thread of its own; a call returns when this
/// rank has its result, or throws rank_lost. Pointers are the backend's memory.
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

  /// Rank 0's bytes come to all ranks, which wait for them as long as it takes.
  virtual void broadcast(std::vector<std::byte>& bytes) = 0;

  /// What each rank says, in their order, on all ranks; each waits for the
  /// others as long as it takes.
  virtual std::vector<std::string> tell_all(const std::string& own) = 0;

  /// Before the first sum: makes room for sums of so many floats at most, and
  /// for as many of each rank to be gathered. Gives the bytes of the backend's
  /// memory that it took; throws std::bad_alloc. What the host keeps grows by
  /// need and does not count.
  virtual std::uint64_t prepare([[maybe_unused]] std::int64_t floats) {
    return 0;
  }

  /// Whether sums of so many floats, and all gatherings, are launches of the
  /// backend alone, so that it may keep the calls of a step that repeats
  /// (ops::backend::run_step). All ranks say the same.
  virtual bool is_kept([[maybe_unused]] std::int64_t floats) const {
    return false;
  }

  /// Whether sums and gatherings are begun, as a rule, without a wait for what
  /// the backend was given before: then steps may be submitted ahead.
  virtual bool runs_ahead() const {
    return false;
  }

  /// After what the backend computed with the others' numbers has been waited
  /// for: throws rank_lost if they may be no numbers, since a rank was gone.
  /// Nothing, where the calls above say so themselves.
  virtual void check() {
    // nop
  }
};

/// Of as many ranks, of which it is the first, to size what one of them takes
/// (ops/cpu/sizing_backend.hpp): nothing can be computed with it.
std::unique_ptr<communicator> make_sizing_communicator(std::int32_t size,
                                                       bool on_gpu = false);

/// Ranks that are threads of this process, over the host's memory
/// (thread_group.hpp). One per rank, in order.
std::vector<std::unique_ptr<communicator>>
make_thread_communicators(std::int32_t size);

} // namespace troupe::ops
