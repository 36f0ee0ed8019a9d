#pragma once

#include "actors/protocol/kv_events.hpp"
#include "engine/engine.hpp"

#include <cstdint>
#include <map>
#include <unordered_set>
#include <vector>

namespace troupe::replica {

/// The blocks in the engine's prefix cache, for the routers that want to know.
class block_list {
public:
  void take(const engine::block_changes&);

  /// The router hears of all blocks now and of changes from then on.
  protocol::kv_events follow(std::uint64_t router);

  void leave(std::uint64_t router) {
    followers_.erase(router);
  }

  /// Who hears of changes.
  std::vector<std::uint64_t> followers() const;

  /// The same changes for one of them.
  protocol::kv_events changes_for(std::uint64_t router,
                                  const engine::block_changes&);

private:
  std::uint32_t block_size_ = 0;
  std::unordered_set<std::uint64_t> names_;
  std::map<std::uint64_t, std::uint64_t> followers_; // with the last sequence
};

} // namespace troupe::replica
