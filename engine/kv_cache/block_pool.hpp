#pragma once

#include "engine/codec/block_name.hpp"
#include "engine/kv_cache/block_key.hpp"

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace troupe::kv_cache {

/// Index of a block in the backend's pool.
using block_id = std::int32_t;

/// What the cache has of a chain of keys.
struct prefix_match {
  std::uint32_t blocks = 0; ///< from the chain's start on, without a gap
  std::uint32_t idle = 0;   ///< of those, held by nobody: holding them takes
                            ///< them out of the free ones
};

/// Blocks that got or lost their name; none is in both lists.
struct name_changes {
  std::vector<codec::block_name> stored;
  std::vector<codec::block_name> dropped;
};

/// Who holds which block. A block is unused, held (by one or more sequences) or
/// idle: held by nobody, but its content is still known by its key. Unused
/// blocks go out first, then idle ones, the least recently used first.
///
/// Only full blocks get a key, and a block with a key is never written again
/// until it is taken anew; so shared blocks are read-only by construction.
class block_pool {
public:
  explicit block_pool(std::uint32_t blocks);

  std::uint32_t total() const {
    return static_cast<std::uint32_t>(blocks_.size());
  }

  /// Blocks that `take` can give: unused and idle ones.
  std::uint32_t free() const {
    return static_cast<std::uint32_t>(unused_.size()) + idle_count_;
  }

  /// Blocks that hold a known prefix, held or idle.
  std::uint32_t cached() const {
    return static_cast<std::uint32_t>(by_key_.size());
  }

  /// Takes a block for writing; the caller has looked at `free`.
  block_id take();

  /// Gives one hold back. Blocks of a sequence go back last block first, so
  /// that the start of a prefix outlives its end.
  void release(block_id block);

  /// Makes the content of a held block known. If another block has that key
  /// already, that one stays the known one. `name` is what others are told that
  /// it is, root_name = nothing.
  void publish(block_id block, const block_key& key,
               codec::block_name name = codec::root_name);

  /// Names of known blocks that have come and gone since the last call.
  name_changes take_changes();

  /// The longest known prefix of a chain of keys.
  prefix_match find(std::span<const block_key> chain) const;

  /// Takes a hold on the first `count` blocks of a chain that `find` found, and
  /// appends their ids.
  void hold(std::span<const block_key> chain, std::uint32_t count,
            std::vector<block_id>& out);

private:
  struct block {
    std::uint32_t holders = 0;
    bool has_key = false;
    block_key key;
    codec::block_name name = codec::root_name;
    /// Neighbours among the idle blocks.
    block_id older = -1;
    block_id newer = -1;
  };

  void note(codec::block_name, bool known);
  void append_idle(block_id id);
  void remove_idle(block_id id);

  std::vector<block> blocks_;
  std::vector<block_id> unused_;
  std::unordered_map<block_key, block_id, block_key_hash> by_key_;
  /// Names since the last take_changes: there now, and before.
  struct change {
    bool before = false;
    bool now = false;
  };
  std::unordered_map<codec::block_name, change> changed_;
  block_id oldest_idle_ = -1;
  block_id newest_idle_ = -1;
  std::uint32_t idle_count_ = 0;
};

} // namespace troupe::kv_cache
