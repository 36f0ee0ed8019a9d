#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "actors/runtime/authority.hpp"
#include "router/http/server.hpp"
#include "router/request_table.hpp"
#include "router/wake_queue.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace troupe::router {

/// What runs in one replica now, for /metrics.
struct engine_load {
  std::string application;
  std::string model;
  std::string replica;
  std::string node;
  protocol::replica_load load;
  std::vector<protocol::gpu_use> gpus;
};

/// How many replicas a model has.
struct replica_count {
  std::string application;
  std::string model;
  std::uint32_t wanted = 0;
  std::uint32_t ready = 0;
};

/// What replicas may have of a node, and what is placed there.
struct node_load {
  std::string node;
  bool alive = false; ///< false: lost, expected back; it offers nothing
  std::vector<protocol::resource> offered; ///< "CPU", "GPU", "memory", ...
  std::vector<protocol::resource> used;
};

struct cluster_load {
  std::vector<engine_load> replicas; ///< those that are ready
  std::vector<replica_count> models;
  std::vector<node_load> nodes = {};
};

/// Asks for the load of the cluster; calls back, on any thread, within a time
/// of its own. Must not block.
using load_source = std::function<void(std::function<void(cluster_load)>)>;

/// All that a router's service can be told. 0 as a port = any.
struct options {
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;
  std::string admin_host = "127.0.0.1";
  std::uint16_t admin_port = 8265;
  http::limits bounds;
  /// Where a proxy before this server mounts it ("/serve"): taken off paths
  /// that have it, put before the places of redirects.
  std::string root_path;
  std::vector<std::string> api_keys; ///< none: any key is taken
  /// Until the first byte of an answer (408), and for the whole of one that has
  /// begun (its stream is cut). 0 = none.
  std::chrono::milliseconds request_timeout{0};
  std::uint32_t io_threads = 2;
  std::uint32_t text_threads = 1; ///< templates and tokenizers
  /// Generation requests whose answer has not ended; past it: 503 at once.
  std::uint32_t requests_max = 1024;
  /// Requests that wait for a text thread; past it: 503 at once.
  std::uint32_t text_queue_max = 512;
  table_limits table;
  wake_queue::limits wake;
  std::chrono::milliseconds attach_time{5'000};
  std::chrono::milliseconds card_time{10'000}; ///< to fetch a model card
  runtime::credentials tls;                    ///< for replicas' blob listeners
  load_source loads;                           ///< unset: no engine gauges
  bool access_log = true;
};

} // namespace troupe::router
