#pragma once

#include "router/histogram.hpp"
#include "router/options.hpp"
#include "router/router_actor.hpp"
#include "router/tenants.hpp"

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace troupe::router {

/// What the router counts per model.
struct model_metrics {
  std::atomic<std::uint64_t> prompt_tokens = 0;
  std::atomic<std::uint64_t> generation_tokens = 0;
  std::atomic<std::uint64_t> cached_tokens = 0;
  std::atomic<std::uint64_t> finished_stop = 0;   ///< choices
  std::atomic<std::uint64_t> finished_length = 0; ///< choices
  std::atomic<std::uint64_t> finished_abort = 0;  ///< requests: client gone
  std::atomic<std::uint64_t> finished_error = 0;  ///< requests
  histogram first_token; ///< from the request's arrival
  histogram per_token;   ///< mean of a choice, after its first token
  histogram whole;
};

/// The counters behind GET /metrics, under the names of Ray Serve LLM where one
/// exists. Any thread. Labels come from the routing table and from fixed sets,
/// never from clients, so their number is bounded.
class metrics {
public:
  /// Those of a model, made at the first call.
  std::shared_ptr<model_metrics> of(const std::string& application,
                                    const std::string& model);

  /// Drops the models that are not in the table.
  void keep_only(const protocol::routing_table&);

  /// An answer ended. `route` is one of ours or "other".
  void count(std::string_view route, std::string_view method, int status,
             double seconds);

  /// Prometheus text format.
  std::string
  text(const router_gauges&, std::size_t requests_in_flight,
       const cluster_load&,
       const std::vector<std::shared_ptr<tenant_account>>& tenants = {}) const;

private:
  using request_key = std::tuple<std::string, std::string, int>;
  using model_key = std::pair<std::string, std::string>;

  mutable std::mutex mutex_;
  std::map<request_key, std::uint64_t> requests_;
  std::map<std::string, std::unique_ptr<histogram>> latency_; // by route
  std::map<model_key, std::shared_ptr<model_metrics>> models_;
};

} // namespace troupe::router
