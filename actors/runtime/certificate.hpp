#pragma once

#include "actors/runtime/authority.hpp"
#include "actors/runtime/openssl_handles.hpp"
#include "engine/codec/error.hpp"

#include <cstdint>
#include <string>
#include <string_view>

// Keys, requests and certificates as PEM. All keys are EC P-256. Nothing here
// reads more than one object of a text, and damaged ones are null or an error.

namespace troupe::runtime {

std::string to_pem(X509*);
std::string to_pem(EVP_PKEY*);

/// The first such object of the text; null if there is none.
key_ptr key_from_pem(std::string_view);
certificate_ptr certificate_from_pem(std::string_view);
request_ptr request_from_pem(std::string_view);

/// Null if OpenSSL cannot.
key_ptr make_key();

/// A request for a certificate, signed with `key`. It asks for nothing but the
/// key: name and use are the authority's to decide. Empty if OpenSSL cannot.
std::string make_request(EVP_PKEY* key);

/// The key of a request, if it is of EC P-256 and has signed the request.
result<key_ptr> requested_key(std::string_view request_pem);

/// The name of its owner; "" if it has none.
std::string certificate_name(X509*);

/// Counts what the authority has revoked so far; it stands in the serial
/// numbers of what it issues. The head's own certificates are of no era: they
/// cannot be revoked. Certificates without one are older than all: of era 0.
using era = std::uint32_t;
inline constexpr era head_era = 0xffff'ffff;

/// A serial number of that era, beside which it is random. False if OpenSSL
/// cannot.
bool set_serial(X509*, era);
era certificate_era(X509*);

/// SHA-256 of a certificate (DER), in lower-case hex.
std::string certificate_hash(X509*);

/// True if `issuer` signed it, its validity has begun and not ended, and it may
/// be used by both sides of a connection.
bool is_good(X509* certificate, X509* issuer);

/// Reads the files and says what is wrong with them: not there, damaged, key
/// and certificate not of each other, not signed by the authority, out of time.
result<void> check_credentials(const credentials&);

} // namespace troupe::runtime
