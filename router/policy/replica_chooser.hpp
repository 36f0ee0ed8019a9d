#pragma once

#include "actors/protocol/routing_table.hpp"
#include "router/policy/kv_index.hpp"
#include "router/policy/prefix_affinity.hpp"
#include "router/policy/replica_snapshot.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

namespace troupe::router {

/// The policy of one model with what it remembers.
class replica_chooser {
public:
  /// `seed` is for tables in memory alone; no choice depends on it.
  replica_chooser(const protocol::choice_rule&, std::uint64_t seed);

  const protocol::choice_rule& rule() const {
    return rule_;
  }

  /// Tokens of the blocks that a wish must name; 0 = none.
  std::uint32_t block_size() const;

  /// The replica for this choice out of those that could take it. Nothing if
  /// none has room.
  std::optional<predicted_replica> choose(const choice_wish&,
                                          std::span<const replica_snapshot>,
                                          std::uint64_t random) const;

  void sent(const choice_wish&, std::uint64_t incarnation);

  /// Whether it predicts what replicas have cached.
  bool predicts() const;

  /// Whether it wants kv_events, and what it makes of them; null if not.
  kv_index* blocks() {
    return std::get_if<kv_index>(&memory_);
  }

  /// The replica is gone, or its session.
  void forget(std::uint64_t incarnation);

private:
  struct nothing {};
  struct last_one {
    std::uint64_t incarnation = 0;
  };
  using memory = std::variant<nothing, last_one, prefix_affinity, kv_index>;

  static memory memory_for(const protocol::choice_rule&, std::uint64_t seed);

  protocol::choice_rule rule_;
  memory memory_;
};

} // namespace troupe::router
