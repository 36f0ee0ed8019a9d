#pragma once

#include "config/autoscaling_config.hpp"
#include "engine/codec/error.hpp"
#include "engine/codec/tagged.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace troupe::controller {

/// A replica that serves.
struct serving_replica {
  std::string replica;
  std::uint64_t incarnation = 0;

  bool operator==(const serving_replica&) const = default;
};

/// A model whose number of replicas follows its load.
struct scaled_model {
  std::string application;
  std::string model;
  std::uint64_t revision = 0; ///< another one: what was decided is void
  config::autoscaling_config scaling;
  std::uint32_t target = 0;              ///< that are wanted so far
  std::vector<serving_replica> replicas; ///< those of a rolling change too
  /// max_num_seqs as given; 0 = the engine's own, which on a CPU is more than
  /// it runs well.
  std::uint32_t sequences_max = 0;
  bool on_cpu = true;
  std::optional<double> target_capacity = {}; ///< see controller::deployment
  bool capacity_rising = false;

  bool operator==(const scaled_model&) const = default;
};

/// Controller -> autoscaler, in the head's process: all there is to scale.
struct scaled_models {
  std::vector<std::string> nodes; ///< that are alive, whose routers count
  std::vector<scaled_model> models;

  bool operator==(const scaled_models&) const = default;
};

/// How many replicas a scaled model has, for a head that starts again.
struct scale_target {
  std::string application;
  std::string model;
  std::uint32_t replicas = 0;

  bool operator==(const scale_target&) const = default;
};

codec::bytes encode(const scaled_models&);
result<scaled_models> decode_scaled_models(codec::bytes_view);

} // namespace troupe::controller
