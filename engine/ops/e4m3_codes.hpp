#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace troupe::ops {

/// Whether all codes are numbers: of E4M3, 0x7f and 0xff are not. Looks at
/// eight at a time, as a model has billions.
inline bool are_e4m3_numbers(std::span<const std::byte> codes) {
  constexpr std::uint64_t magnitudes = 0x7f7f7f7f7f7f7f7f;
  constexpr std::uint64_t ones = 0x0101010101010101;
  constexpr std::size_t at_once = sizeof ones;
  std::uint64_t sums = 0; // a byte's top bit: such a code is there
  while (codes.size() >= at_once) {
    std::uint64_t some = 0;
    std::memcpy(&some, codes.data(), at_once);
    sums |= (some & magnitudes) + ones;
    codes = codes.subspan(at_once);
  }
  return (sums & ~magnitudes) == 0 &&
         std::none_of(codes.begin(), codes.end(), [](std::byte code) {
           return (code & std::byte{0x7f}) == std::byte{0x7f};
         });
}

} // namespace troupe::ops
