#pragma once

#include <cstdint>

namespace troupe::ops {

/// What a gate's number becomes before it multiplies another: x / (1 + e^-x);
/// GELU in its tanh form; GELU as it is defined.
enum class gate : std::uint8_t { silu, gelu, erf_gelu };

} // namespace troupe::ops
