#pragma once

namespace troupe::runtime {

/// Links this part into the program, which is all that it needs.
///
/// OpenSSL keeps a queue of errors per thread, and SSL_get_error calls a
/// connection broken while there is one in it, whoever left it there. CAF 0.17
/// serves all connections on one thread and never empties the queue: one failed
/// handshake, or one peer that died, ended all other connections of the
/// process. So this program's SSL_read, SSL_write, SSL_accept and SSL_connect
/// stand before OpenSSL's for all shared libraries, empty the queue, and go on
/// there.
void keep_tls_errors_apart();

} // namespace troupe::runtime
