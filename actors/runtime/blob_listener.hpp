#pragma once

#include "actors/protocol/routing_table.hpp"
#include "actors/runtime/authority.hpp"
#include "engine/codec/error.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

// Bulk data between processes goes past CAF: every process has one listener
// that hands out blobs by the hash of their content. A connection is mutual
// TLS 1.3 and carries one request:
//
//   client:  GET <SHA-256, 64 hex digits> <offset> <length>\n
//   server:  OK <size of the whole blob> <bytes that follow>\n<bytes>
//        or  NO\n                         the process does not hold the blob
//
// A length of 0 asks for all bytes from the offset on. Anything else is
// answered by closing the connection.

namespace troupe::runtime {

/// SHA-256 in lower-case hex: a blob's name.
std::string content_hash(std::string_view content);

struct blob_limits {
  std::size_t blobs_bytes_max = std::size_t{1} << 30; ///< all blobs together
  std::size_t connections_max = 64;              ///< one more is closed at once
  std::chrono::milliseconds request_max{10'000}; ///< a whole conversation
};

/// Serves blobs from one thread of its own until it is destroyed.
class blob_listener {
public:
  /// Listens at `address` (numeric), on a port that the system chooses.
  static result<std::unique_ptr<blob_listener>>
  start(const credentials&, const std::string& address,
        const blob_limits& = {});

  ~blob_listener();
  blob_listener(const blob_listener&) = delete;
  blob_listener& operator=(const blob_listener&) = delete;

  std::uint16_t port() const;

  /// Hands `content` out from now on and returns its hash. Any thread.
  result<std::string> add(std::string content);

private:
  struct server;

  explicit blob_listener(std::unique_ptr<server>);

  std::unique_ptr<server> server_;
};

/// Gets a blob from the process at `from` (its blob_port) and checks that it is
/// what its hash says. Blocks at most `timeout`. Errors: not_found, limit (it
/// has more than `bytes_max` bytes), corrupt, unavailable.
result<std::string> fetch_blob(const protocol::endpoint& from,
                               const std::string& hash, const credentials&,
                               std::chrono::milliseconds timeout,
                               std::size_t bytes_max = std::size_t{256} << 20);

/// The same for a part: `length` bytes from `offset` on, fewer at the blob's
/// end. A part cannot be checked; the caller checks the whole.
result<std::string> fetch_blob_part(const protocol::endpoint& from,
                                    const std::string& hash,
                                    std::uint64_t offset, std::uint64_t length,
                                    const credentials&,
                                    std::chrono::milliseconds timeout);

} // namespace troupe::runtime
