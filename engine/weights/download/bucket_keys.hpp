#pragma once

#include "engine/weights/download/fetch_settings.hpp"
#include "engine/weights/download/sigv4.hpp"

#include <chrono>
#include <mutex>
#include <string_view>

namespace troupe::download {

/// Finds what signs requests: the keys of the settings, else the container's,
/// else the machine's own (AWS's metadata service, version 2; Google's), else
/// none: anonymous. Temporary ones are asked for again before they run out.
class bucket_keys {
public:
  bucket_keys(bool is_google, const fetch_settings&);

  /// Any thread. An error only if the place that was named (the container's)
  /// does not answer as it should; a machine without a metadata service has no
  /// keys.
  result<access_key> get();

private:
  result<access_key> find(http_session&);
  result<access_key> of_container(http_session&);
  result<access_key> of_amazon(http_session&);
  result<access_key> of_google(http_session&);
  result<access_key> read_amazon(std::string_view json);

  bool is_google_;
  fetch_settings settings_;
  std::mutex mutex_;
  access_key key_;
  bool is_known_ = false;
  std::chrono::system_clock::time_point good_until_;
};

} // namespace troupe::download
