#pragma once

#include "engine/codec/error.hpp"
#include "engine/ops/tensor.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace troupe::weights {

/// True for the types whose elements are floats: F32, F16, BF16.
bool is_float(ops::element_type type);

/// The floats that elements of a float type stand for, exactly.
std::vector<float> widen(ops::element_type type,
                         std::span<const std::byte> bytes);

/// Writes `values` to `out` as elements of `type`: F32, F16 and BF16 rounded to
/// nearest, ties to even; Q8_0 and Q4_0 in blocks of 32 with the bits that
/// PyPI's `gguf` 0.19 gives (its blocks too small for a float's reciprocal are
/// zeros here). `values` holds whole blocks and `out` has their size. Refuses
/// values that are not finite and those too large for the type (corrupt).
/// Errors of rounding, with a the largest magnitude of a block: Q8_0 at most
/// a / 254, Q4_0 at most a / 8, and the scale's rounding on top: to 11 bits, to
/// fewer where it is below 2^-14 (a below 0.008 and 0.0005).
result<void> narrow(std::span<const float> values, ops::element_type type,
                    std::span<std::byte> out);

/// `widen`, then `narrow`, a piece at a time: needs little memory of its own.
result<void> convert(ops::element_type from, std::span<const std::byte> bytes,
                     ops::element_type to, std::span<std::byte> out);

} // namespace troupe::weights
