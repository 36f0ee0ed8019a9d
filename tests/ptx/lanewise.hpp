#pragma once

#include "tests/ptx/warp.hpp"

#include <tuple>
#include <utility>

// Handlers of instructions that each lane does for itself. Such ones do not
// fail where a register was never written; their results are then as if they
// were not written either.

namespace troupe::ptx {

// The types of registers, as the ISA names them.
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s8 = std::int8_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;

/// r[0] = F(r[1], r[2], ...), where F is a type with a function.
template <class F, class D, class... S>
struct lanewise {
  static void run(warp& w, const instruction& i, std::uint32_t mask) {
    each(w, i, mask, std::index_sequence_for<S...>{});
  }

private:
  template <std::size_t... N>
  static void each(warp& w, const instruction& i, std::uint32_t mask,
                   std::index_sequence<N...>) {
    D* const to = w.at<D>(i.r[0]);
    const std::tuple<const S*...> from{w.at<S>(i.r[1 + N])...};
    if (mask == all_lanes) {
      // A register is where another is, or beside it.
#pragma GCC ivdep
      for (unsigned l = 0; l < lanes; ++l)
        to[l] = static_cast<D>(F{}(std::get<N>(from)[l]...));
    } else {
      for (auto m = mask; m != 0; m &= m - 1) {
        const auto l = static_cast<unsigned>(std::countr_zero(m));
        to[l] = static_cast<D>(F{}(std::get<N>(from)[l]...));
      }
    }
    w.define(i.r[0], mask, (w.defined(i.r[1 + N]) & ... & all_lanes));
  }
};

/// 32 results of 0 or 1 as a mask.
inline std::uint32_t mask_of(const std::uint8_t (&of)[lanes]) {
  std::uint32_t out = 0;
  for (unsigned part = 0; part < lanes / 8; ++part) {
    std::uint64_t eight;
    __builtin_memcpy(&eight, of + 8 * part, sizeof eight);
    // Each byte's least bit comes to the top byte, in order.
    out |= static_cast<std::uint32_t>(eight * 0x0102040810204080u >> 56)
           << 8 * part;
  }
  return out;
}

/// Which lanes of the mask F(a, b) holds for.
template <class F, class S>
std::uint32_t compared(const S* a, const S* b, std::uint32_t mask) {
  if (mask != all_lanes) {
    std::uint32_t out = 0;
    for (auto m = mask; m != 0; m &= m - 1) {
      const auto l = static_cast<unsigned>(std::countr_zero(m));
      out |= std::uint32_t{F{}(a[l], b[l])} << l;
    }
    return out;
  }
  std::uint8_t of[lanes];
  for (unsigned l = 0; l < lanes; ++l)
    of[l] = F{}(a[l], b[l]);
  return mask_of(of);
}

} // namespace troupe::ptx
