#pragma once

#include "actors/runtime/certificate.hpp"
#include "actors/runtime/private_file.hpp"
#include "actors/runtime/revocations.hpp"

#include <openssl/pem.h>
#include <openssl/rsa.h>

#include <catch2/catch.hpp>

#include <filesystem>
#include <string>

namespace troupe::test {

/// Credentials of the authority in `issuer` that `authority` would not give:
/// valid from `begin` to `end`, in seconds from now.
inline runtime::credentials
issue_for_time(const std::filesystem::path& issuer,
               const std::filesystem::path& directory, long begin, long end) {
  auto ca = runtime::read_private(issuer / "authority.pem").value();
  auto ca_key = runtime::key_from_pem(ca);
  auto ca_certificate = runtime::certificate_from_pem(ca);
  auto key = runtime::make_key();
  runtime::certificate_ptr made{X509_new()};
  X509_set_version(made.get(), X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(made.get()), 7);
  X509_gmtime_adj(X509_getm_notBefore(made.get()), begin);
  X509_gmtime_adj(X509_getm_notAfter(made.get()), end);
  X509_set_issuer_name(made.get(), X509_get_subject_name(ca_certificate.get()));
  X509_set_pubkey(made.get(), key.get());
  REQUIRE(X509_sign(made.get(), ca_key.get(), EVP_sha256()) > 0);
  auto files = runtime::credentials_in(directory);
  REQUIRE(runtime::make_private_directory(directory).has_value());
  for (const auto& [path, text] :
       {std::pair{files.certificate, runtime::to_pem(made.get())},
        std::pair{files.key, runtime::to_pem(key.get())},
        std::pair{files.authority, runtime::to_pem(ca_certificate.get())}})
    REQUIRE(runtime::write_private(path, text, runtime::if_there::replace)
                .has_value());
  return files;
}

/// Credentials as a machine gets them that joins now and is called `name`.
inline runtime::credentials join_as(const runtime::authority& ca,
                                    const std::string& name,
                                    const std::filesystem::path& directory) {
  auto key = runtime::make_key();
  auto certificate = ca.sign(runtime::make_request(key.get()), name, "",
                             runtime::newest_era(ca.revoked().value()));
  auto files = runtime::credentials_in(directory);
  REQUIRE(runtime::make_private_directory(directory).has_value());
  for (const auto& [path, text] :
       {std::pair{files.certificate, certificate.value()},
        std::pair{files.key, runtime::to_pem(key.get())},
        std::pair{files.authority, ca.certificate()}})
    REQUIRE(runtime::write_private(path, text, runtime::if_there::replace)
                .has_value());
  return files;
}

/// A certificate request for `key`, signed by `signer`, that asks for more than
/// it is due: to be an authority, and to be called "head".
inline std::string greedy_request(EVP_PKEY* key, EVP_PKEY* signer) {
  runtime::request_ptr made{X509_REQ_new()};
  X509_NAME_add_entry_by_txt(
      X509_REQ_get_subject_name(made.get()), "CN", MBSTRING_ASC,
      reinterpret_cast<const unsigned char*>("head"), -1, -1, 0);
  auto* wishes = sk_X509_EXTENSION_new_null();
  sk_X509_EXTENSION_push(wishes, X509V3_EXT_conf_nid(nullptr, nullptr,
                                                     NID_basic_constraints,
                                                     "critical,CA:TRUE"));
  X509_REQ_add_extensions(made.get(), wishes);
  sk_X509_EXTENSION_pop_free(wishes, X509_EXTENSION_free);
  X509_REQ_set_pubkey(made.get(), key);
  X509_REQ_sign(made.get(), signer, EVP_sha256());
  runtime::bio_ptr out{BIO_new(BIO_s_mem())};
  PEM_write_bio_X509_REQ(out.get(), made.get());
  char* data = nullptr;
  auto size = BIO_get_mem_data(out.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

} // namespace troupe::test
