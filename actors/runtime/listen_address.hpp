#pragma once

#include "engine/codec/error.hpp"

#include <string>

namespace troupe::runtime {

/// Whether a port of the cluster may listen there: a numeric address of this
/// machine, named. "0.0.0.0" and "::", which are all of them, are refused.
result<void> check_listen_address(const std::string& address);

} // namespace troupe::runtime
