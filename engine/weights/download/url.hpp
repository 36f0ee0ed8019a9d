#pragma once

#include "engine/codec/error.hpp"

#include <string>
#include <string_view>

namespace troupe::download {

/// Everything but letters, digits and "-._~" as %XX (RFC 3986, unreserved);
/// slashes stay if `keep_slashes`.
std::string percent_encode(std::string_view text, bool keep_slashes);

/// The parts of an absolute http or https URL.
struct url_parts {
  std::string scheme; ///< "http" or "https"
  std::string host;   ///< lower case; an IPv6 address in brackets
  std::string port;   ///< always there
  std::string path;   ///< "/" at least
  bool has_user = false;
  bool has_query = false;
  bool has_fragment = false;

  /// Who hears what is sent there.
  bool same_origin(const url_parts& other) const {
    return scheme == other.scheme && host == other.host && port == other.port;
  }

  bool is_loopback() const;
};

/// Errors: not an absolute URL, or another scheme.
result<url_parts> parse_url(const std::string& url);

/// True if what is sent there is heard by nobody else: https, or loopback.
bool keeps_secrets(const std::string& url);

/// Where a Location header of `base` leads.
result<std::string> resolve_url(const std::string& base,
                                const std::string& location);

/// A URL for people: scheme, host and path. What may be secret (a user, the
/// query of a signed URL) is left out.
std::string shown_url(const std::string& url);

} // namespace troupe::download
