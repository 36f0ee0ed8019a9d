#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace troupe::codec {

/// Names a full block of a text's tokens together with all that is before it:
/// the same name in every process. Whoever wants to can make two texts whose
/// blocks share a name, so nothing may depend on it but a guess.
using block_name = std::uint64_t;

/// The name before the first block.
inline constexpr block_name root_name = 0;

/// The name of a block from the name of the block before it: a fold of 128-bit
/// products over pairs of tokens, as wyhash has it (Wang Yi, 2019). Never 0.
block_name chain_name(block_name before, std::span<const std::int32_t> tokens);

/// The names of the blocks of `block_size` tokens that a cache can have of a
/// prompt: full ones, and not the last token, which is always computed.
std::vector<block_name> block_names(std::span<const std::int32_t> prompt,
                                    std::uint32_t block_size);

} // namespace troupe::codec
