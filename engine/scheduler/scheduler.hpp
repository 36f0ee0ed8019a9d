#pragma once

#include "engine/kv_cache/block_pool.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace troupe::scheduler {

/// What planning knows of one sequence.
struct sequence_state {
  std::uint32_t tokens = 0;   ///< prompt and output so far
  std::uint32_t computed = 0; ///< of those, with keys and values in its blocks
  std::uint32_t blocks = 0;   ///< held
  /// The logits of all its prompt rows are wanted, not of the last alone.
  bool is_scored = false;
};

/// What a step may use.
struct bounds {
  std::uint32_t max_num_seqs = 1;
  std::uint32_t max_num_batched_tokens = 1; ///< rows
  std::uint32_t max_scored_rows = 1;        ///< rows of scored sequences
  std::uint32_t block_size = 1;             ///< positions
};

/// Questions that planning asks about the KV blocks; nothing changes by them.
class kv_view {
public:
  virtual ~kv_view() = default;

  /// Blocks that would be free if only the first `running` sequences held any.
  virtual std::uint32_t free_blocks(std::size_t running) const = 0;

  /// What the prefix cache has of a waiting sequence. It leaves at least the
  /// last token to compute.
  virtual kv_cache::prefix_match find_prefix(std::size_t sequence) const = 0;
};

/// One step. The first `rows.size()` sequences run, each with that many rows
/// (0: it has to wait for blocks); those that ran before and lie behind are
/// preempted, those that did not run before are admitted.
struct decision {
  std::vector<std::uint32_t> rows;
  /// Per admitted sequence, in order: what it takes from the prefix cache.
  std::vector<kv_cache::prefix_match> admitted;
};

/// Plans a step: a pure function. `sequences` are in order of arrival, and the
/// first `running` of them run: so "oldest first" is from front to back, and
/// the youngest running one is the one at the border.
///
/// - A sequence with one token to compute (a running stream) gets its row
/// first;
///   the rest of the rows goes to prompts in chunks, oldest first.
/// - If blocks lack for that, the youngest is preempted until it fits. The
/// oldest
///   always gets a row, so that every sequence gets done.
/// - A waiting sequence is admitted when blocks for all its tokens exist beside
///   what the running ones still need, and never past an older one. No
///   admission in a step that preempts.
///
/// Every sequence must fit the pool alone, with all the tokens it will have.
void plan_step(std::span<const sequence_state> sequences, std::size_t running,
               const bounds& limits, const kv_view& kv, decision& out);

} // namespace troupe::scheduler
