#pragma once

#include "engine/codec/error.hpp"

#include <chrono>
#include <cstdint>
#include <string>

namespace troupe::node {

/// Where an admin listener is.
struct admin_place {
  std::string host = "127.0.0.1"; ///< an address or a name
  std::uint16_t port = 8265;
};

/// Reads "HOST:PORT", "http://HOST:PORT" or "[::1]:PORT" (a slash may follow).
/// Whether there is a host of that name is seen when it is asked.
result<admin_place> parse_place(const std::string& text);
std::string to_string(const admin_place&);

struct admin_answer {
  int status = 0;
  std::string body;
};

/// One request to an admin listener; blocks, each step (resolve, connect, send,
/// receive) at most `time_max`. Any status is an answer. Errors: no such host,
/// nobody there, no answer.
result<admin_answer> ask_admin(const admin_place&, const std::string& method,
                               const std::string& path, std::string body,
                               std::chrono::milliseconds time_max);

/// A piece of a path, percent-encoded.
std::string encoded(const std::string& piece);

/// The sentence of an answer that is not 2xx: what its body says, or its
/// status.
std::string reason_of(const admin_answer&);

} // namespace troupe::node
