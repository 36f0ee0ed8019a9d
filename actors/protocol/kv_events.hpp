#pragma once

#include <cstdint>
#include <vector>

namespace troupe::protocol {

/// What became of the blocks in a replica's prefix cache since it told last: a
/// part of the token_batch to a router that asked for it. Blocks are named by
/// codec::chain_name.
struct kv_events {
  std::uint64_t sequence = 0; ///< one more than the one before; 0 = none
  bool all = false; ///< `stored` is all that there is: what was before counts
                    ///< no more
  std::uint32_t block_size = 0; ///< tokens
  std::vector<std::uint64_t> stored;
  std::vector<std::uint64_t> dropped; ///< none of them is in `stored`

  bool operator==(const kv_events&) const = default;
};

} // namespace troupe::protocol
