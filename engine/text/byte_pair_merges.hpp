#pragma once

#include "engine/text/tokenizer_data.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace troupe::text {

/// The merges of a byte-pair encoding: which two ids become which, best first.
/// Immutable after the last `add`.
class byte_pair_merges {
public:
  explicit byte_pair_merges(std::size_t count);

  /// The merge of `rank` (0 is the best). Of the same pair the last one counts.
  void add(token_id left, token_id right, std::uint32_t rank, token_id merged);

  /// Merges neighbours in `ids`, from `from` on, until no pair has a merge:
  /// always the best pair, the leftmost of equals. O(n log n) for n ids, fewer
  /// than 2^32.
  void apply(std::vector<token_id>& ids, std::size_t from) const;

private:
  struct slot {
    std::uint64_t pair = UINT64_MAX; ///< left << 32 | right; all ones: empty
    std::uint32_t rank = 0;
    token_id merged = 0;
  };

  static constexpr std::uint32_t no_rank = UINT32_MAX;

  const slot* find(token_id left, token_id right) const;
  std::uint32_t rank_of(token_id left, token_id right) const;
  // Both return how many ids are left, at the front.
  std::size_t apply_to_few(std::span<token_id> ids) const;
  std::size_t apply_to_many(std::span<token_id> ids) const;

  std::vector<slot> slots_; ///< open addressing, a power of two
  int shift_;
};

} // namespace troupe::text
