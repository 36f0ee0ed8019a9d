#include "engine/scheduler/scheduler.hpp"

#include <algorithm>

namespace troupe::scheduler {

namespace {

/// One plan in the making.
class planner {
public:
  planner(std::span<const sequence_state> sequences, const bounds& limits,
          const kv_view& kv, decision& out)
      : sequences_(sequences), limits_(limits), kv_(kv), out_(out) {
  }

  void plan(std::size_t running) {
    std::size_t kept = running;
    while (!plan_running(kept) && kept > 1)
      --kept;
    if (kept == running)
      admit();
  }

private:
  /// False if a stream or the oldest sequence gets no row for want of blocks.
  bool plan_running(std::size_t running) {
    out_.rows.assign(running, 0);
    out_.admitted.clear();
    free_blocks_ = kv_.free_blocks(running);
    rows_left_ = limits_.max_num_batched_tokens;
    scored_rows_left_ = limits_.max_scored_rows;
    for (std::size_t i = 0; i < running; ++i)
      if (left(i) == 1 && !give_rows(i, 1))
        return false;
    for (std::size_t i = 0; i < running; ++i)
      if (left(i) > 1 && !give_rows(i, left(i)) && i == 0)
        return false;
    return true;
  }

  /// Gives a sequence up to `wanted` rows; false if it gets none.
  bool give_rows(std::size_t i, std::uint32_t wanted) {
    const sequence_state& s = sequences_[i];
    const std::uint32_t reach =
        (s.blocks + free_blocks_) * limits_.block_size - s.computed;
    const std::uint32_t rows = std::min(most_rows(i, wanted), reach);
    const std::uint32_t blocks = blocks_for(s.computed + rows);
    free_blocks_ -= std::max(blocks, s.blocks) - s.blocks;
    use_rows(i, rows);
    out_.rows[i] = rows;
    return rows > 0;
  }

  std::uint32_t most_rows(std::size_t i, std::uint32_t wanted) const {
    const std::uint32_t rows = std::min(wanted, rows_left_);
    return is_scored(i) ? std::min(rows, scored_rows_left_) : rows;
  }

  void use_rows(std::size_t i, std::uint32_t rows) {
    rows_left_ -= rows;
    if (is_scored(i))
      scored_rows_left_ -= rows;
  }

  /// A last row has its logits anyway.
  bool is_scored(std::size_t i) const {
    return sequences_[i].is_scored && left(i) > 1;
  }

  void admit() {
    std::uint32_t promised = promised_blocks();
    const std::size_t most =
        std::min<std::size_t>({sequences_.size(), limits_.max_num_seqs,
                               limits_.max_num_batched_tokens});
    while (out_.rows.size() < most && rows_left_ > 0) {
      const std::size_t i = out_.rows.size();
      const kv_cache::prefix_match found = kv_.find_prefix(i);
      const std::uint32_t cached = found.blocks * limits_.block_size;
      const std::uint32_t new_blocks =
          blocks_for(sequences_[i].tokens) - found.blocks;
      if (new_blocks + found.idle + promised + headroom() > free_blocks_)
        return;
      const std::uint32_t rows = most_rows(i, sequences_[i].tokens - cached);
      if (rows == 0)
        return;
      const std::uint32_t taken_now = blocks_for(cached + rows) - found.blocks;
      free_blocks_ -= taken_now + found.idle;
      promised += new_blocks - taken_now;
      use_rows(i, rows);
      out_.rows.push_back(rows);
      out_.admitted.push_back(found);
    }
  }

  /// Blocks that the running sequences need for the tokens they have, beyond
  /// this step.
  std::uint32_t promised_blocks() const {
    std::uint32_t blocks = 0;
    for (std::size_t i = 0; i < out_.rows.size(); ++i) {
      const sequence_state& s = sequences_[i];
      const std::uint32_t after_step =
          std::max(s.blocks, blocks_for(s.computed + out_.rows[i]));
      blocks += std::max(blocks_for(s.tokens), after_step) - after_step;
    }
    return blocks;
  }

  /// Free blocks to leave for the growth of running streams, lest the admitted
  /// sequence be preempted at once.
  std::uint32_t headroom() const {
    return static_cast<std::uint32_t>(out_.rows.size() + 3) / 4;
  }

  std::uint32_t left(std::size_t i) const {
    return sequences_[i].tokens - sequences_[i].computed;
  }

  std::uint32_t blocks_for(std::uint32_t positions) const {
    return (positions + limits_.block_size - 1) / limits_.block_size;
  }

  std::span<const sequence_state> sequences_;
  const bounds& limits_;
  const kv_view& kv_;
  decision& out_;
  std::uint32_t free_blocks_ = 0;
  std::uint32_t rows_left_ = 0;
  std::uint32_t scored_rows_left_ = 0;
};

} // namespace

void plan_step(std::span<const sequence_state> sequences, std::size_t running,
               const bounds& limits, const kv_view& kv, decision& out) {
  planner{sequences, limits, kv, out}.plan(running);
}

} // namespace troupe::scheduler
