#pragma once

#include "router/policy/block_index.hpp"
#include "router/policy/lowest_cost.hpp"
#include "router/policy/replica_snapshot.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace troupe::router {

/// A replica's place and how many tokens of the prompt its cache is thought to
/// have.
struct predicted_replica {
  std::size_t place = 0;
  std::uint64_t cached_tokens = 0;
};

/// What the index has of the wish's prompt, an entry per replica.
std::vector<cached_prefix> cached_in(const block_index&, const choice_wish&,
                                     std::span<const replica_snapshot>);

/// Prompts go where their beginning went before: the router's own memory of
/// what it sent, block by block. The work that a match saves is weighed against
/// the work that waits (lowest_cost). The least recently sent is forgotten when
/// the memory is full.
class prefix_affinity {
public:
  struct options {
    /// A shorter share of the prompt is no match.
    double match_rate_min = 0.1;
    /// With more choices than this between the fullest and the emptiest replica
    /// the match does not count: power of two.
    double imbalance_max = std::numeric_limits<double>::infinity();
  };

  prefix_affinity(options, std::size_t bytes_max, std::uint64_t seed);

  /// Nothing if no replica has room.
  std::optional<predicted_replica> choose(const choice_wish&,
                                          std::span<const replica_snapshot>,
                                          std::uint64_t random) const;

  void sent(const choice_wish&, std::uint64_t incarnation);

  /// The replica is gone, and its cache.
  void forget(std::uint64_t incarnation) {
    sent_.remove_all(incarnation);
  }

private:
  options options_;
  block_index sent_;
};

} // namespace troupe::router
