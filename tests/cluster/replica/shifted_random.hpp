#pragma once

#include <cstdint>

namespace troupe::test {

/// Whether the random numbers of this choice are those of one position later,
/// while all else of it stays right. Any thread.
void shift_random(std::uint64_t seed, std::uint32_t choice, bool shifted);

} // namespace troupe::test
