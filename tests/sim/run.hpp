#pragma once

#include "tests/sim/client.hpp"
#include "tests/sim/network.hpp"
#include "tests/sim/world.hpp"

#include <cstdint>
#include <optional>

namespace troupe::sim {

/// What became of the run of one seed.
struct run_report {
  std::optional<violation> found;
  instant ended{0};
  instant healed{0};
  std::uint64_t events = 0;
  std::uint64_t trace_hash = 0;
  outcome_counts requests;
  std::size_t deployments = 0; ///< acknowledged
  network_counts messages;
};

/// The life of a cluster from its start through faults to its healing and rest.
/// The same seed gives the same run, whether wall clocks jump in it or not.
/// `print`: the trace to standard output. `older_replicas`: they are of the
/// protocol version before, with its faults.
run_report run_seed(std::uint64_t seed, bool print = false,
                    bool wall_clocks_jump = true, bool older_replicas = false);

} // namespace troupe::sim
