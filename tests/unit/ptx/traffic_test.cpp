#include "tests/ptx/traffic.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <functional>

using namespace troupe::ptx;

namespace {

constexpr std::uint32_t all = 0xffffffff;

std::array<std::uint64_t, 32>
at(const std::function<std::uint64_t(std::uint64_t lane)>& address) {
  std::array<std::uint64_t, 32> out;
  for (std::uint64_t l = 0; l < out.size(); ++l)
    out[l] = address(l);
  return out;
}

bool is(const traffic& seen, std::uint64_t paid, std::uint64_t least) {
  INFO(seen.paid << ", at least " << seen.least);
  CHECK((seen.paid == paid && seen.least == least));
  return true;
}

} // namespace

TEST_CASE("sectors are counted once, however many lanes are in them", "[ptx]") {
  const auto beside = at([](auto l) { return 4096 + 4 * l; });
  is(sectors_of(beside, all, 4), 4, 4);
  is(sectors_of(beside, 0xff, 4), 1, 1);
  is(sectors_of(at([](auto l) { return 4100 + 4 * l; }), all, 4), 5, 4);
  is(sectors_of(at([](auto l) { return 256 * l; }), all, 4), 32, 4);
  is(sectors_of(at([](auto) { return 64; }), all, 4), 1, 1);
  is(sectors_of(at([](auto l) { return 16 * l; }), all, 16), 16, 16);
  is(sectors_of(at([](auto l) { return 2 * l; }), all, 2), 2, 2);
}

TEST_CASE("a bank gives a word a turn, to whoever wants it", "[ptx]") {
  is(turns_of(at([](auto l) { return 4 * l; }), all, 4), 1, 1);
  is(turns_of(at([](auto) { return 12; }), all, 4), 1, 1);
  is(turns_of(at([](auto l) { return 8 * l; }), all, 4), 2, 1);
  is(turns_of(at([](auto l) { return 128 * l; }), all, 4), 32, 1);
  is(turns_of(at([](auto l) { return 132 * l; }), all, 4), 1, 1);
  is(turns_of(at([](auto l) { return 2 * l; }), all, 2), 1, 1);
}

TEST_CASE("wide accesses are made by fewer lanes at a time", "[ptx]") {
  is(turns_of(at([](auto l) { return 16 * l; }), all, 16), 4, 4);
  is(turns_of(at([](auto l) { return 8 * l; }), all, 8), 2, 2);
  // Eight rows that are 128 bytes apart.
  is(turns_of(at([](auto l) { return 128 * (l % 8) + 16 * (l / 8); }), all, 16),
     32, 4);
  is(turns_of(at([](auto l) { return 144 * (l % 8) + 16 * (l / 8); }), all, 16),
     4, 4);
  is(turns_of(at([](auto l) { return 16 * l; }), 0xff, 16), 1, 1);
}
