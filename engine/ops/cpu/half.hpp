#pragma once

#include <cstdint>

namespace troupe::ops::cpu {

/// IEEE half and brain floats to float, exactly. A signalling NaN becomes
/// quiet.
float from_f16(std::uint16_t half);
float from_bf16(std::uint16_t bits);

/// Rounds to half, ties to even; too large becomes infinite, NaN stays NaN.
std::uint16_t to_f16(float value);

/// The value as bf16 has it, half to even, but 0 below 2^-56 (bf16_tile.hpp).
float rounded_to_bf16(float value);

} // namespace troupe::ops::cpu
