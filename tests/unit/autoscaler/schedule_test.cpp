#include "autoscaler/policy/schedule.hpp"

#include <catch2/catch.hpp>

using namespace troupe;
using autoscaler::scheduled_minimum;
using namespace std::chrono_literals;

namespace {

// 5 January 1970 was a Monday.
constexpr std::chrono::system_clock::time_point monday{96h};

config::scheduled_minimum span(std::uint32_t from, std::uint32_t to,
                               std::uint32_t least, std::uint32_t days = 0x7f) {
  return {from * 60, to * 60, days, least};
}

} // namespace

TEST_CASE("a span holds from its first minute to before its last") {
  const std::vector spans{span(8, 18, 3)};
  CHECK(scheduled_minimum(spans, 0, monday + 8h - 1min) == 0);
  CHECK(scheduled_minimum(spans, 0, monday + 8h) == 3);
  CHECK(scheduled_minimum(spans, 0, monday + 18h - 1min) == 3);
  CHECK(scheduled_minimum(spans, 0, monday + 18h) == 0);
}

TEST_CASE("a span over midnight belongs to the day on which it begins") {
  const std::vector spans{span(22, 6, 2, 1u << 4)}; // Friday
  CHECK(scheduled_minimum(spans, 0, monday + 4 * 24h + 23h) == 2);
  CHECK(scheduled_minimum(spans, 0, monday + 5 * 24h + 5h) == 2);
  CHECK(scheduled_minimum(spans, 0, monday + 5 * 24h + 6h) == 0);
  CHECK(scheduled_minimum(spans, 0, monday + 4 * 24h + 5h) == 0);
}

TEST_CASE("Sunday's night ends on Monday") {
  const std::vector spans{span(22, 6, 2, 1u << 6)};
  CHECK(scheduled_minimum(spans, 0, monday + 5h) == 2);
  CHECK(scheduled_minimum(spans, 0, monday + 6h) == 0);
}

TEST_CASE("the same times are a whole day") {
  const std::vector spans{span(0, 0, 1, 1u)};
  CHECK(scheduled_minimum(spans, 0, monday) == 1);
  CHECK(scheduled_minimum(spans, 0, monday + 24h - 1min) == 1);
  CHECK(scheduled_minimum(spans, 0, monday + 24h) == 0);
}

TEST_CASE("the offset says where it is that time") {
  const std::vector spans{span(8, 18, 3)};
  CHECK(scheduled_minimum(spans, 120, monday + 6h) == 3);
  CHECK(scheduled_minimum(spans, 120, monday + 16h) == 0);
  CHECK(scheduled_minimum(spans, -300, monday + 13h) == 3);
  CHECK(scheduled_minimum(spans, -300, monday + 12h) == 0);
}

TEST_CASE("of several the greatest counts, before 1970 too") {
  const std::vector spans{span(8, 18, 3), span(9, 12, 5)};
  CHECK(scheduled_minimum(spans, 0, monday + 10h) == 5);
  CHECK(scheduled_minimum(spans, 0, monday - 7 * 24h * 52 + 10h) == 5);
  CHECK(scheduled_minimum({}, 0, monday) == 0);
}
