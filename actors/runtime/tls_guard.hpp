#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

// CAF 0.17 speaks TLS through OpenSSL with five faults that a stranger can use.
// This program's SSL_accept, SSL_read and so on stand before OpenSSL's for all
// shared libraries, mend them, and go on there:
//
// - OpenSSL keeps a queue of errors per thread, and SSL_get_error calls a
//   connection broken while there is one in it, whoever left it there. CAF
//   serves all connections on one thread and never empties the queue: one
//   failed handshake ended all other connections. It is emptied before each
//   call.
// - A handshake has no end: it is given `handshake_max`.
// - Handshakes are not counted: beyond `handshakes_max` at once the oldest
//   makes room, so that a flood cannot use up the file descriptors.
// - While one waits for its peer, CAF's thread turns in circles: it waits a
//   moment for the oldest one instead.
// - A certificate file that cannot be read when a connection begins (no file
//   descriptor left, most likely) ended the process: the connection has no
//   certificate then, so its handshake fails.
//
// It also sees to it that CAF speaks TLS 1.3 and nothing older, and that nobody
// is spoken to whose certificate is void (revocations.hpp): not from the
// handshake on, and a connection that exists fails when it is read next, which
// CAF's heartbeats see to. Only what CAF does is meant: other parts of the
// program make their contexts and streams in ways that are left alone.

namespace troupe::runtime {

/// How long a handshake over a socket may take.
inline constexpr std::chrono::seconds handshake_max{5};

/// How many handshakes that others began may be under way in a process.
inline constexpr std::size_t handshakes_max = 64;

/// Handshakes over sockets that are under way now; those that others began.
std::size_t handshakes_under_way();

/// The name in the certificate of the peer at this end of a connection of CAF
/// that this process has; nothing if there is no such connection. `address` is
/// numeric.
std::optional<std::string> peer_name(const std::string& address,
                                     std::uint16_t port);

/// Links this part into the program, which is all that it needs.
void guard_tls();

} // namespace troupe::runtime
