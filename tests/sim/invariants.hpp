#pragma once

#include "tests/sim/cluster.hpp"
#include "tests/sim/deployer.hpp"
#include "tests/sim/traffic.hpp"

#include <optional>

namespace troupe::sim {

/// The first thing that is not as it must be once everything is healed and at
/// rest; nothing if all is.
std::optional<violation> find_unsettled(cluster&, deployer&, const traffic&);

} // namespace troupe::sim
