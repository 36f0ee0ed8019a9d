#pragma once

#include "actors/runtime/tls_context.hpp"
#include "engine/codec/error.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace troupe::runtime {

/// The answer to a request: `head`, then `part`, then the connection ends.
/// Both empty: it ends without a word.
struct tls_reply {
  std::string head;
  std::string_view part;
  std::shared_ptr<const std::string> content; ///< what `part` points into
};

/// Answers the bytes of a request that came so far, from `address` (numeric);
/// null = more are needed. Called in the listener's thread.
using tls_answerer = std::function<std::optional<tls_reply>(
    std::string_view bytes, const std::string& address)>;

struct tls_listener_options {
  std::string address;                  ///< numeric; not all addresses at once
  std::uint16_t port = 0;               ///< 0 = any
  std::size_t connections_max = 64;     ///< one more is closed at once
  std::size_t request_bytes_max = 1024; ///< closed when it has more
  std::chrono::milliseconds request_max{10'000}; ///< a whole conversation
};

/// A port with TLS where each connection carries one request and its answer.
/// Serves from one thread of its own until it is destroyed.
class tls_listener {
public:
  static result<std::unique_ptr<tls_listener>>
  start(tls_context, const tls_listener_options&, tls_answerer);

  ~tls_listener();
  tls_listener(const tls_listener&) = delete;
  tls_listener& operator=(const tls_listener&) = delete;

  std::uint16_t port() const;

private:
  struct server;

  explicit tls_listener(std::unique_ptr<server>);

  std::unique_ptr<server> server_;
};

} // namespace troupe::runtime
