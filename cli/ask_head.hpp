#pragma once

#include "cli/commands.hpp"
#include "engine/codec/error.hpp"
#include "node/admin_client.hpp"

#include <optional>
#include <simdjson.h>
#include <string>
#include <string_view>

// What the verbs that speak to a running cluster share.

namespace troupe::cli {

/// Where the user says that the head is; nothing, with a message on stderr, if
/// that is no place.
std::optional<node::admin_place> place_of(const admin_arguments&);

/// One request to the head, answered with 2xx. Errors: it is not there or has
/// no answer now (errc::unavailable), or it says no.
result<std::string> try_head(const node::admin_place&,
                             const std::string& method, const std::string& path,
                             std::string body = {});

/// The same. Nothing, with a message on stderr, if there is no answer with 2xx.
std::optional<std::string> ask_head(const admin_arguments&,
                                    const std::string& method,
                                    const std::string& path,
                                    std::string body = {});

/// A member of an object that the head sent; empty if it has none of that name.
std::string_view text(simdjson::dom::element object, std::string_view key);

} // namespace troupe::cli
