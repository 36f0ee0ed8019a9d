#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace troupe::weights {

/// SHA-256 over the length (u64, little-endian) and the SHA-256 digests of the
/// 1 MiB chunks of `data`, as 64 hex digits. The same for every number of
/// `threads` (at least the caller's works).
std::string tree_hash(std::span<const std::byte> data, int threads);

} // namespace troupe::weights
