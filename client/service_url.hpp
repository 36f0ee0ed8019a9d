#pragma once

#include "engine/codec/error.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace troupe::client {

/// Where an OpenAI-compatible service is.
struct service_url {
  bool tls = false;
  std::string host; ///< a name or an address, without brackets
  std::uint16_t port = 80;
  std::string path; ///< what stands before "/v1/..."; without a last slash

  /// The value of the Host header.
  std::string authority() const;
};

/// Reads "http://HOST[:PORT][/PATH]", "https://..." or "HOST[:PORT][/PATH]".
/// A last "/v1", as clients of the OpenAI API have it in their base URL, is
/// taken off the path. Errors: another scheme, a user or a query in it, no
/// host, no such port.
result<service_url> parse_service_url(std::string_view text);

} // namespace troupe::client
