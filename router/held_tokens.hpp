#pragma once

#include "actors/protocol/routing_table.hpp"
#include "actors/protocol/token_batch.hpp"

#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>

namespace troupe::router {

/// News of a request's choices that wait for a slow reader, as ids. What comes
/// next of a choice is joined to what waits of it, so that many tokens go out
/// in one frame; never so many that the frame is long. Bounded by what the
/// choices may draw.
class held_tokens {
public:
  using route = std::shared_ptr<const protocol::replica_route>;

  struct entry {
    std::uint32_t choice = 0;
    protocol::choice_tokens news;
    route from;
  };

  /// News of one choice are added in order.
  void add(std::uint32_t choice, protocol::choice_tokens news, route from);

  bool empty() const {
    return entries_.empty();
  }

  /// The oldest. Not empty.
  entry take();

private:
  entry* last_of(std::uint32_t choice);

  std::deque<entry> entries_;
  std::uint64_t taken_ = 0; ///< entries that have left the front
  /// By choice: the number of its last entry, counted from the first ever.
  std::unordered_map<std::uint32_t, std::uint64_t> last_;
};

} // namespace troupe::router
