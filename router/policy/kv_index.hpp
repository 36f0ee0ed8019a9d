#pragma once

#include "actors/protocol/kv_events.hpp"
#include "router/policy/block_index.hpp"
#include "router/policy/prefix_affinity.hpp"
#include "router/policy/replica_snapshot.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

namespace troupe::router {

/// Which replica has which blocks of KV, as the replicas tell it, and how often
/// that was wrong. The router asks a replica for all of its blocks when it is
/// new, when an event is missing, and when hits are not what was predicted.
class kv_index {
public:
  using time_point = std::chrono::steady_clock::time_point;

  struct limits {
    std::size_t bytes_max = std::size_t{32} << 20;
    /// A shorter share of the prompt is no match.
    double match_rate_min = 0.1;
    /// Hits that were looked at, in tokens, before they say anything; and how
    /// far prediction and report may lie apart then.
    double judged_tokens = 4096;
    double error_max = 0.25;
    /// Between two times of asking one replica because of its hits.
    std::chrono::milliseconds ask_pause{5'000};
    /// A replica that does not answer is asked again.
    std::chrono::milliseconds answer_time{2'000};
  };

  kv_index(limits, std::uint64_t seed);

  /// From now on this replica counts, with nothing known of it.
  void follow(std::uint64_t incarnation);

  /// The replica is gone, or its session.
  void forget(std::uint64_t incarnation);

  /// Those of a replica that nobody follows are dropped.
  void take(std::uint64_t incarnation, const protocol::kv_events&);

  /// A choice's first news: what was predicted when it was sent, what the
  /// replica found.
  void compare(std::uint64_t incarnation, std::uint64_t predicted,
               std::uint64_t reported);

  /// True, once, if the replica should be asked for all of its blocks now.
  bool should_ask(std::uint64_t incarnation, time_point now);

  /// Where the prompt is done first: cached by what replicas have told. Nothing
  /// if no replica has room.
  std::optional<predicted_replica> choose(const choice_wish&,
                                          std::span<const replica_snapshot>,
                                          std::uint64_t random) const;

  std::vector<std::uint64_t> followed() const;

  /// Of the blocks that replicas tell of; 0 = none has yet.
  std::uint32_t block_size() const {
    return block_size_;
  }

  const block_index& blocks() const {
    return index_;
  }

private:
  struct source {
    bool in_step = false; ///< all events up to `sequence` are in the index
    std::uint64_t sequence = 0;
    std::optional<time_point> asked;
    double off = 0;    ///< tokens by which predictions were wrong
    double judged = 0; ///< tokens predicted or reported, the larger
    bool drifts = false;
  };

  void tell(std::uint64_t incarnation, const protocol::kv_events&);

  limits limits_;
  block_index index_;
  std::uint32_t block_size_ = 0;
  std::map<std::uint64_t, source> sources_;
};

} // namespace troupe::router
