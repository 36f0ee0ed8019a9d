#pragma once

#include "bench/policies/event_queue.hpp"
#include "router/request_table.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

namespace troupe::bench {

/// What a router asks of the outside.
struct router_outside {
  std::function<void(std::uint64_t replica)> attach;
  std::function<void(std::uint64_t replica, const protocol::request_record&,
                     std::uint64_t request)>
      generate;
  std::function<void(std::uint64_t replica, std::uint64_t record)> cancel;
  std::function<void(std::uint64_t replica, bool)> follow_blocks;
  std::function<void(std::uint64_t request, const protocol::choice_tokens&)>
      news;
  std::function<void(std::uint64_t request, const error&)> failed;
};

class simulated_router {
public:
  virtual ~simulated_router() = default;

  virtual void submit(std::uint64_t request, protocol::request_record) = 0;
  virtual void route_by(const protocol::routing_table&) = 0;
  virtual void attached(std::uint64_t replica) = 0;
  virtual void tokens(protocol::token_batch) = 0;
  virtual std::vector<protocol::router_load> load() const = 0;
};

/// The real one: a request_table.
std::unique_ptr<simulated_router> make_table_router(event_queue&,
                                                    router_outside,
                                                    std::uint64_t incarnation,
                                                    std::uint64_t seed);

/// For comparison: any replica, drawn.
std::unique_ptr<simulated_router> make_random_router(router_outside,
                                                     std::uint64_t seed);

} // namespace troupe::bench
