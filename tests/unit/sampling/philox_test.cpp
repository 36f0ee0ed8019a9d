#include "engine/sampling/philox.hpp"

#include <catch2/catch.hpp>

using namespace troupe::sampling;

using words = std::array<std::uint32_t, 4>;

TEST_CASE("philox4x32-10 gives the published vectors") {
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) ==
        words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                   {0xa4093822, 0x299f31d0}) ==
        words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("seed, choice and position each change the number") {
  const double base = uniform(1, 0, 0);
  CHECK(base == uniform(1, 0, 0));
  CHECK(base != uniform(2, 0, 0));
  CHECK(base != uniform(1 + (1ull << 32), 0, 0));
  CHECK(base != uniform(1, 1, 0));
  CHECK(base != uniform(1, 0, 1));
}

TEST_CASE("uniform numbers fill [0, 1) evenly") {
  constexpr int bins = 64;
  constexpr int draws = 64000;
  std::array<int, bins> count{};
  for (std::uint32_t position = 0; position < draws; ++position) {
    const double u = uniform(7, 3, position);
    REQUIRE((u >= 0 && u < 1));
    ++count[static_cast<int>(u * bins)];
  }
  double chi_square = 0;
  for (int n : count)
    chi_square += (n - 1000.0) * (n - 1000.0) / 1000.0;
  CHECK(chi_square < 103.4); // 99.9 % of 63 degrees of freedom
}
