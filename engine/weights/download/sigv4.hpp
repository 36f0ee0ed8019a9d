#pragma once

#include "engine/weights/download/http_session.hpp"

#include <string>

namespace troupe::download {

/// What signs requests to a bucket; without a key they are anonymous.
struct access_key {
  std::string id;
  std::string secret;
  std::string token;  ///< of temporary keys
  std::string bearer; ///< instead of a key: an OAuth token
};

/// Adds the headers of AWS's Signature Version 4 for the service "s3" to a
/// request without a body: x-amz-date, x-amz-content-sha256, for a temporary
/// key x-amz-security-token, and Authorization over these and the host. `time`
/// is UTC as "20130524T000000Z". The URL's path and query must be encoded as
/// percent_encode does, the query sorted by name. Headers that `request` has
/// already and begin with "range" or "x-amz-" are signed too.
void sign_request(const access_key&, const std::string& region,
                  const std::string& time, http_request& request);

/// Now, as `sign_request` wants it.
std::string signing_time();

} // namespace troupe::download
