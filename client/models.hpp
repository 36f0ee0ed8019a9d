#pragma once

#include "client/service_url.hpp"
#include "engine/codec/error.hpp"

#include <string>

namespace troupe::client {

/// The model to ask for text: `wanted` as it is, or, if that is empty, the only
/// one that the service has; those of which it says that they do something else
/// do not count. Errors: no answer, none; invalid_argument: several to choose
/// from.
result<std::string> choose_model(const service_url&, const std::string& api_key,
                                 const std::string& wanted);

} // namespace troupe::client
