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

/// What each router keeps of a model's queue for tenants that have little in
/// it, whatever it hears of the other routers' queues: that is late.
struct small_part {
  std::size_t places; ///< of all of them together
  std::size_t own;    ///< who has more has more than little
};
constexpr small_part small_part_of(std::size_t queue_max) {
  const auto places = queue_max / 4 > 0 ? queue_max / 4 : 1;
  return {places, places / 2 > 0 ? places / 2 : 1};
}

} // namespace troupe::router
