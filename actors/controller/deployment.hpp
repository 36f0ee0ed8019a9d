#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "config/serve_config.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::controller {

/// One model of the desired state.
struct model_deployment {
  /// What every replica starts with; `replica` and `node` are empty here.
  protocol::replica_spec spec;
  std::string route_prefix;
  std::string note; ///< shown by `troupe status`; empty = none
  std::uint32_t replicas = 1;
  std::uint32_t replicas_per_node_max = 0; ///< 0 = no bound
  bool needs_gpu = false;
  std::string accelerator_type; ///< with needs_gpu; empty = any
  double cpus = 0;              ///< counted per replica; 0 = not counted
  std::uint64_t created = 0;    ///< seconds since 1970

  bool operator==(const model_deployment&) const = default;
};

/// The desired state, as the store keeps it.
struct deployment {
  std::vector<model_deployment> models;

  bool operator==(const deployment&) const = default;
};

codec::bytes encode(const deployment&);
result<deployment> decode_deployment(codec::bytes_view);

/// What a checked configuration asks for. With `cpu_only` models that want a GPU
/// are served by the CPU engine (`--device cpu`). `now` is in seconds since 1970.
deployment to_deployment(const config::serve_config&, bool cpu_only,
                         std::uint64_t now);

} // namespace troupe::controller
