#pragma once

#include "tests/ptx/machine.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace troupe::ptx {

inline constexpr unsigned lanes = 32;
inline constexpr std::uint32_t all_lanes = 0xffffffff;

/// Where the spaces begin in the addresses of the whole, which no address of
/// this process is.
inline constexpr std::uint64_t shared_window = std::uint64_t{1} << 62;
inline constexpr std::uint64_t local_window = std::uint64_t{1} << 61;
inline constexpr std::uint64_t parameter_window = std::uint64_t{3} << 60;
inline constexpr std::uint64_t window_bytes = std::uint64_t{1} << 32;
/// Where a space begins in its own addresses: not at 0, so that null is none of
/// its places.
inline constexpr std::uint64_t window_begin = 1024;

/// Where the shared memory begins that a launch asks for.
inline constexpr std::uint64_t dynamic_align = 128;

enum class space : std::uint8_t { generic, global, shared, local, parameter };

class warp;
struct instruction;
struct range;

/// Runs it for the lanes of a mask, of which there is one at least.
using handler = void (*)(warp&, const instruction&, std::uint32_t);

/// Operands are slots of a warp's registers, also those that do not change.
struct instruction {
  handler run = nullptr;
  std::uint32_t r[15] = {};
  /// Of the predicate that guards it; 0: it always runs.
  std::uint32_t guard = 0;
  bool guard_not = false;
  bool address_is_64 = false;
  space where = space::generic;
  /// What is no operand of the ISA, as each handler has it.
  std::uint8_t mode = 0;
  std::uint32_t target = 0; ///< of a branch
  std::int64_t offset = 0;  ///< of an address
  std::uint32_t at = 0;     ///< in the text
};

/// A slot that holds the same for all lanes.
struct constant {
  std::uint32_t slot;
  std::uint64_t bits;
  std::uint8_t bytes; ///< 0: of a predicate
};

enum class special : std::uint8_t {
  tid_x,
  tid_y,
  tid_z,
  ntid_x,
  ntid_y,
  ntid_z,
  ctaid_x,
  ctaid_y,
  ctaid_z,
  nctaid_x,
  nctaid_y,
  nctaid_z,
  laneid,
  warpid,
  nwarpid,
  lanemask_eq,
  lanemask_lt,
  lanemask_le,
  lanemask_gt,
  lanemask_ge,
  dynamic_smem_size,
  total_smem_size,
};

/// A body, ready to be run.
struct decoded_body {
  std::string_view text; ///< of the whole program
  std::vector<instruction> code;
  /// A slot has 4 bytes for each lane; a register of 64 bits takes two. Slot 0
  /// is nobody's.
  std::uint32_t slots = 1;
  std::vector<constant> constants;
  struct special_slot {
    std::uint32_t slot;
    special what;
  };
  std::vector<special_slot> specials;
  std::size_t local_bytes = 0;
  const std::vector<range>* variables = nullptr; ///< of the program
};

} // namespace troupe::ptx
