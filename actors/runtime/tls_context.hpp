#pragma once

#include "actors/runtime/authority.hpp"
#include "engine/codec/error.hpp"

#include <boost/asio/ssl/context.hpp>

#include <memory>

// How the program's own listeners and clients (those that are not CAF's) speak
// TLS: version 1.3, and no session outlives its connection.

namespace troupe::runtime {

using tls_context = std::shared_ptr<boost::asio::ssl::context>;

enum class tls_side { client, server };

/// Both sides have a certificate, the cluster's authority alone is trusted, and
/// whom it has revoked (revocations.hpp) is refused.
result<tls_context> mutual_tls(const credentials&, tls_side);

/// For a server whose clients have no certificate yet. It shows them the
/// authority's certificate beside its own.
result<tls_context> server_only_tls(const credentials&);

/// For a client that has no certificate yet. It does not check the server: the
/// caller does, after the handshake and before it says anything.
tls_context unchecked_client_tls();

} // namespace troupe::runtime
