#pragma once

#include "actors/controller/deployment.hpp"
#include "config/serve_config.hpp"

#include <cstdint>
#include <optional>
#include <string>

// The JSON document of Ray Serve's REST API: what a deployment was asked for
// with, and what of it may be shown.

namespace troupe::node {

inline constexpr std::size_t document_bytes_max = 4u << 20;

/// What a document asks for, and all findings; with errors there is nothing to
/// deploy.
struct read_document_result {
  std::optional<controller::deployment> wanted;
  config::diagnostics findings;
};

/// Reads a document (config::load_text). `now` is in seconds since 1970.
read_document_result read_document(const std::string& json,
                                   const std::string& name, bool cpu_only,
                                   std::uint64_t now);

/// The document that was deployed, as JSON; secrets are hidden.
std::string shown_document(const controller::deployment&);

/// `json` with what must not be shown replaced by config::hidden_value: the
/// values of `api_keys`, and environment variables that look like secrets.
std::string without_secrets(const std::string& json);

} // namespace troupe::node
