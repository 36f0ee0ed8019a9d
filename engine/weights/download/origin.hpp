#pragma once

#include "engine/codec/error.hpp"
#include "engine/weights/download/digest.hpp"
#include "engine/weights/download/http_session.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::download {

/// A file that an origin offers.
struct remote_file {
  std::string name; ///< relative; is_safe_name holds
  std::uint64_t size = 0;
  std::string blob; ///< the name of its content in the cache
  content_check check;
  std::string etag; ///< the origin's, with quotes; may be empty

  bool operator==(const remote_file&) const = default;
};

/// What an origin offers in one version.
struct listing {
  std::string version; ///< a commit, or a hash of what is there; hex
  std::vector<remote_file> files;
};

/// Bounds of a listing, whoever made it.
struct listing_limits {
  static constexpr std::size_t files = 10'000;
  static constexpr std::size_t answer_bytes = 32u << 20;
  static constexpr std::uint64_t file_bytes = std::uint64_t{1} << 42;
};

/// A place that models are fetched from. Its errors do not name the model.
class origin {
public:
  virtual ~origin() = default;

  /// Everything that is there, sizes and hashes included. errc::unavailable if
  /// the origin cannot be reached.
  virtual result<listing> list(http_session&) = 0;

  /// What `list` left open about a file that was chosen: fills it in.
  virtual result<void> complete(http_session&, const listing&,
                                remote_file&) = 0;

  /// A request for the bytes from `begin` to `end` (excluded). Any thread.
  virtual result<http_request> request(const listing&, const remote_file&,
                                       std::uint64_t begin,
                                       std::uint64_t end) = 0;

  /// What an answer that is not of the 200s means, for people.
  virtual error explain(const http_response&) const = 0;
};

} // namespace troupe::download
