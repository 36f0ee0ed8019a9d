#pragma once

#include <cstddef>

namespace troupe::router {

/// Whether one of several who share places has enough of them: four times as
/// many as are free (the dynamic threshold of Choudhury and Hahne, 1998); and
/// the last place of all, however few they are, is for who has none. `free`
/// counts without the place that is asked for.
constexpr bool has_enough(std::size_t has, std::size_t free) {
  return has >= 4 * (free + 1) || (free == 0 && has > 0);
}

} // namespace troupe::router
