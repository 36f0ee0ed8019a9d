#include "engine/sampling/fixed_math.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>

using namespace troupe::sampling;

TEST_CASE("fixed_exp is within a few units of the true value") {
  double worst = 0;
  for (int i = 0; i <= 700000; ++i) {
    const double x = -i * 0.00099991;
    const double truth = static_cast<double>(std::exp((long double){x}));
    worst = std::max(worst, std::abs(fixed_exp(x) - truth) / truth);
  }
  CHECK(worst < 1e-15);
}

TEST_CASE("fixed_exp is exact at 0 and ends at 0") {
  CHECK(fixed_exp(0) == 1);
  CHECK(fixed_exp(-701) == 0);
  CHECK(fixed_exp(-1e300) == 0);
  CHECK(fixed_exp(-std::numeric_limits<double>::infinity()) == 0);
}

TEST_CASE("fixed_log is within a few units of the true value") {
  double worst = 0;
  for (int i = 1; i < 300000; ++i) {
    const double x = 1 + 0.0001 * i * i;
    worst = std::max(worst, std::abs(fixed_log(x) - std::log(x)) / std::log(x));
  }
  CHECK(worst < 1e-14);
  CHECK(fixed_log(1) == 0);
}

TEST_CASE("the bits of fixed_exp and fixed_log are these on every machine") {
  CHECK(fixed_exp(-1) == 0x1.78b56362cef38p-2);
  CHECK(fixed_exp(-10.5) == 0x1.cdfc263f6a0bap-16);
  CHECK(fixed_log(10) == 0x1.26bb1bbb55515p+1);
}
