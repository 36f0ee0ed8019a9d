#pragma once

#include "actors/protocol/routing_table.hpp"

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

namespace troupe::router {

/// What a router counts of one replica, over all of its processes.
struct replica_counts {
  std::string application;
  std::string model;
  std::string replica;
  std::uint64_t choices_sent = 0;
  std::uint64_t predicted_tokens = 0; ///< of prompts, thought to be cached
  std::uint64_t reported_tokens = 0;  ///< that were, of the same prompts
};

/// The counts of all replicas in the routing table. Any thread.
class replica_gauges {
public:
  /// Those that are not in the table are dropped.
  void follow(const protocol::routing_table&);

  // By the incarnation of the replica's process; unknown ones are not counted.
  void sent(std::uint64_t incarnation);
  void measured(std::uint64_t incarnation, std::uint64_t predicted_tokens,
                std::uint64_t reported_tokens);

  std::vector<replica_counts> all() const;

private:
  using name = std::tuple<std::string, std::string, std::string>;

  mutable std::mutex mutex_;
  std::map<name, replica_counts> counts_;
  std::map<std::uint64_t, replica_counts*> of_process_; // into counts_
};

} // namespace troupe::router
