#include "actors/runtime/tls_error_queue.hpp"

#include <dlfcn.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

namespace {

template <class Function>
Function* openssls_own(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

} // namespace

extern "C" {

int SSL_read(SSL* ssl, void* buffer, int size) {
  static const auto next = openssls_own<decltype(SSL_read)>("SSL_read");
  ERR_clear_error();
  return next(ssl, buffer, size);
}

int SSL_write(SSL* ssl, const void* buffer, int size) {
  static const auto next = openssls_own<decltype(SSL_write)>("SSL_write");
  ERR_clear_error();
  return next(ssl, buffer, size);
}

int SSL_accept(SSL* ssl) {
  static const auto next = openssls_own<decltype(SSL_accept)>("SSL_accept");
  ERR_clear_error();
  return next(ssl);
}

int SSL_connect(SSL* ssl) {
  static const auto next = openssls_own<decltype(SSL_connect)>("SSL_connect");
  ERR_clear_error();
  return next(ssl);
}

} // extern "C"

namespace troupe::runtime {

void keep_tls_errors_apart() {
  // nop
}

} // namespace troupe::runtime
