#include "engine/sampling/draw_math.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>

using namespace troupe::sampling;

TEST_CASE("weights become whole numbers of 2^-43") {
  constexpr std::uint64_t one = std::uint64_t{1} << 43;
  CHECK(fixed_weight(0) == 0);
  CHECK(fixed_weight(1) == one);
  CHECK(fixed_weight(0.5) == one / 2);
  CHECK(fixed_weight(std::ldexp(1.0, -43)) == 1);
  CHECK(fixed_weight(std::ldexp(1.0, -45)) == 0);
  CHECK(fixed_weight(std::ldexp(3.0, -44)) == 2); // to even
}

TEST_CASE("a share is the fewest units that reach it, one at least") {
  CHECK(fixed_share(0.5, 4) == 2);
  CHECK(fixed_share(0.5, 5) == 3);
  CHECK(fixed_share(0.75, 4) == 3);
  CHECK(fixed_share(0.76, 4) == 4);
  CHECK(fixed_share(1e-30, 4) == 1);
  // What is rounded up to 2^60 is no more than all.
  constexpr auto all = std::uint64_t{1} << 60;
  CHECK(fixed_share(1 - 0x1p-24, all) == all - (all >> 24));
}

TEST_CASE("changed logits are finite, and what is no number stays none") {
  constexpr float most = std::numeric_limits<float>::max();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  CHECK(biased(most, most) == most);
  CHECK(biased(-infinity, 1) == -most);
  CHECK(repeated(-most, 2) == -most);
  CHECK(repeated(2, 4) == 0.5f);
  CHECK(repeated(-2, 4) == -8);
  CHECK(penalised(1, 0.5f, 3, 0.25f) == -0.75f);
  CHECK(std::isnan(biased(std::numeric_limits<float>::quiet_NaN(), 1)));
}
