#pragma once

#include <cstdint>

namespace troupe::ops {

/// Times of a device between steps: from the last kernel of one, its draw, to
/// where the first of the next could begin.
struct step_gaps {
  std::uint64_t count = 0;
  double seconds = 0; ///< of all together
};

} // namespace troupe::ops
