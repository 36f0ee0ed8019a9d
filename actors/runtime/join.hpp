#pragma once

#include "actors/protocol/routing_table.hpp"
#include "actors/runtime/authority.hpp"
#include "actors/runtime/token.hpp"
#include "engine/codec/error.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

// How a machine becomes a node: over HTTPS, on a port of its own at the head,
// before it may speak CAF. The connection is TLS 1.3 with the head's
// certificate; the worker has none yet and shows a token instead.
//
//   POST /join {"token": ..., "node": ..., "version": ..., "request": PEM}
//   200 {"certificate": PEM, "authority": PEM, "port": ..., "version": ...}
//
// Anything else, and any token that is not good, gets an error and is closed.

namespace troupe::runtime {

struct join_options {
  std::string address = "127.0.0.1"; ///< numeric, where to listen
  std::uint16_t port = 0;            ///< 0 = any
  credentials tls;                   ///< the head's own
  std::uint16_t cluster_port = 0;    ///< told to those who join
};

struct join_limits {
  std::size_t connections_max = 64; ///< one more is closed at once
  std::size_t request_bytes_max = 16 * 1024;
  std::chrono::milliseconds request_max{5'000}; ///< a whole conversation
};

/// Answers those who want to join, from one thread of its own, until it is
/// destroyed.
class join_listener {
public:
  static result<std::unique_ptr<join_listener>>
  start(const authority&, const join_options&, const join_limits& = {});

  virtual ~join_listener() = default;

  virtual std::uint16_t port() const = 0;
};

/// What a machine has once it joined.
struct membership {
  credentials tls;
  protocol::endpoint head; ///< cluster port of the controller
};

/// Asks the head at `host`:`port` in; `node` is the name that it wants to bear.
/// Key and certificate are written into `directory` (mode 0700); a key that is
/// there is kept, so that whoever reads the files meanwhile finds a pair.
/// Blocks at most `time_max`. Errors: nobody there, another authority than the
/// token's, a token that is refused (its reason), a version too far apart.
result<membership> join_cluster(const std::string& host, std::uint16_t port,
                                const std::string& token,
                                const std::string& node,
                                const std::filesystem::path& directory,
                                std::chrono::milliseconds time_max);

/// What `join_cluster` left in `directory`, if it is whole, still valid and of
/// the authority with this hash ("" = of any): then the machine need not join
/// again. The head may listen on another port by now; joining again tells.
std::optional<membership>
existing_membership(const std::filesystem::path& directory,
                    const std::string& authority_hash = {});

} // namespace troupe::runtime
