#pragma once

#include <cstdint>

namespace troupe::cuda {

/// Moves floats between the devices' memories of several ranks. All ranks make
/// the same calls in the same order; what a call moves is read after all that
/// this rank's device was given before, and is there for all that it is given
/// next. Nothing is computed: a library's sums have an order of their own.
/// Throws ops::rank_lost.
class device_transport {
public:
  virtual ~device_transport() = default;

  /// all[r * n + i] = what rank r has in own[i], on all ranks. A rank's `own`
  /// may lie at its place in `all`.
  virtual void gather(const float* own, std::int64_t n, float* all) = 0;

  /// Whether a call waits on the host for what the device was given before.
  virtual bool waits() const = 0;

  /// parts[r * n + i] = what rank r has in own[rank * n + i].
  virtual void exchange(const float* own, std::int64_t n, float* parts) = 0;
};

} // namespace troupe::cuda
