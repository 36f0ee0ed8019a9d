#pragma once

#include <cstddef>

namespace troupe::router {

/// Whether one of several who share places has enough of them: four times as
/// many as are free, so that there is always one for another. `free` counts
/// without the place that is asked for. (The dynamic threshold of Choudhury and
/// Hahne, 1998.)
constexpr bool has_enough(std::size_t has, std::size_t free) {
  return has >= 4 * (free + 1);
}

} // namespace troupe::router
