#pragma once

#include "client/service_url.hpp"
#include "engine/codec/error.hpp"

#include <string>

namespace troupe::client {

/// The model to ask: `wanted` as it is, or, if that is empty, the only one that
/// the service has. Errors: no answer, none, several to choose from.
result<std::string> choose_model(const service_url&, const std::string& api_key,
                                 const std::string& wanted);

} // namespace troupe::client
