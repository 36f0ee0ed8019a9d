#include "actors/runtime/tls_context.hpp"

#include "actors/runtime/certificate.hpp"
#include "actors/runtime/private_file.hpp"
#include "actors/runtime/revocations.hpp"

#include <boost/asio/ssl/verify_mode.hpp>

#include <openssl/ssl.h>

namespace troupe::runtime {

namespace {

namespace ssl = boost::asio::ssl;
using boost::system::error_code;

tls_context make_context(tls_side side) {
  auto out = std::make_shared<ssl::context>(side == tls_side::server
                                                ? ssl::context::tlsv13_server
                                                : ssl::context::tlsv13_client);
  SSL_CTX_set_session_cache_mode(out->native_handle(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(out->native_handle(), 0);
  return out;
}

result<tls_context> context_with(const credentials& files, tls_side side) {
  auto context = make_context(side);
  error_code failed;
  context->use_certificate_chain_file(files.certificate.string(), failed);
  if (!failed)
    context->use_private_key_file(files.key.string(), ssl::context::pem,
                                  failed);
  if (failed)
    return error{errc::io,
                 "cannot use the certificate files: " + failed.message()};
  return context;
}

} // namespace

result<tls_context> mutual_tls(const credentials& files, tls_side side) {
  auto context = context_with(files, side);
  if (!context)
    return context;
  error_code failed;
  (*context)->load_verify_file(files.authority.string(), failed);
  if (!failed)
    (*context)->set_verify_mode(
        ssl::verify_peer | ssl::verify_fail_if_no_peer_cert, failed);
  if (failed)
    return error{errc::io,
                 "cannot use the certificate files: " + failed.message()};
  refuse_revoked((*context)->native_handle(), revocations::of(files));
  return context;
}

result<tls_context> server_only_tls(const credentials& files) {
  auto context = context_with(files, tls_side::server);
  if (!context)
    return context;
  auto pem = read_private(files.authority);
  if (!pem)
    return pem.error();
  auto issuer = certificate_from_pem(*pem);
  if (!issuer ||
      SSL_CTX_add1_chain_cert((*context)->native_handle(), issuer.get()) != 1)
    return error{errc::corrupt,
                 files.authority.string() + " does not hold a certificate"};
  return context;
}

tls_context unchecked_client_tls() {
  auto context = make_context(tls_side::client);
  error_code ignored;
  context->set_verify_mode(ssl::verify_none, ignored);
  return context;
}

} // namespace troupe::runtime
