#include "actors/runtime/authority.hpp"

#include "actors/runtime/certificate.hpp"
#include "actors/runtime/join_messages.hpp"
#include "actors/runtime/openssl_handles.hpp"
#include "actors/runtime/private_file.hpp"
#include "actors/runtime/revocations.hpp"
#include "actors/runtime/sha256.hpp"

#include <boost/asio/ip/address.hpp>

#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>

namespace fs = std::filesystem;

namespace troupe::runtime {

namespace {

constexpr long days_valid = 3650;
constexpr long clock_skew_seconds = 24 * 60 * 60;

error openssl_error(std::string what) {
  char text[256] = "";
  if (auto code = ERR_get_error())
    ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return {errc::internal, std::move(what) + ": " + text};
}

// -- certificates ------------------------------------------------------------

bool add_extension(X509* to, X509* issuer, int kind, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, to, nullptr, nullptr, 0);
  extension_ptr made{X509V3_EXT_conf_nid(nullptr, &context, kind, value)};
  return made && X509_add_ext(to, made.get(), -1) == 1;
}

bool set_subject(X509* certificate, std::string_view name) {
  auto* subject = X509_get_subject_name(certificate);
  // A common name has at most 64 characters.
  auto shown = name.substr(0, 64);
  auto inside_character = [](char c) { return (c & 0xC0) == 0x80; };
  while (shown.size() < name.size() && !shown.empty() &&
         inside_character(name[shown.size()]))
    shown.remove_suffix(1);
  return X509_NAME_add_entry_by_txt(
             subject, "CN", MBSTRING_UTF8,
             reinterpret_cast<const unsigned char*>(shown.data()),
             static_cast<int>(shown.size()), -1, 0) == 1;
}

/// What a certificate says of the place of its owner; "" if nothing. The
/// address is numeric, so the text holds nothing that OpenSSL would interpret.
std::string place_of(std::string_view address) {
  boost::system::error_code failed;
  auto ip = boost::asio::ip::make_address(std::string{address}, failed);
  return failed ? std::string{} : "IP:" + ip.to_string();
}

/// A certificate for `key`, signed by `issuer` or, without one, by itself.
certificate_ptr make_certificate(std::string_view name, EVP_PKEY* key,
                                 X509* issuer, EVP_PKEY* issuer_key, era of,
                                 const std::string& place = {}) {
  certificate_ptr made{X509_new()};
  auto* x = made.get();
  bool own = issuer == nullptr;
  if (own)
    issuer = x;
  bool done = x && X509_set_version(x, X509_VERSION_3) == 1 &&
              set_serial(x, of) &&
              X509_gmtime_adj(X509_getm_notBefore(x), -clock_skew_seconds) &&
              X509_time_adj_ex(X509_getm_notAfter(x), days_valid, 0, nullptr) &&
              set_subject(x, name) &&
              X509_set_issuer_name(x, X509_get_subject_name(issuer)) == 1 &&
              X509_set_pubkey(x, key) == 1 &&
              add_extension(x, issuer, NID_subject_key_identifier, "hash") &&
              add_extension(x, issuer, NID_authority_key_identifier, "keyid");
  if (own)
    done = done &&
           add_extension(x, issuer, NID_basic_constraints,
                         "critical,CA:TRUE,pathlen:0") &&
           add_extension(x, issuer, NID_key_usage, "critical,keyCertSign");
  else
    done =
        done &&
        add_extension(x, issuer, NID_basic_constraints, "critical,CA:FALSE") &&
        add_extension(x, issuer, NID_key_usage, "critical,digitalSignature") &&
        add_extension(x, issuer, NID_ext_key_usage, "serverAuth,clientAuth") &&
        (place.empty() ||
         add_extension(x, issuer, NID_subject_alt_name, place.c_str()));
  if (!done || X509_sign(x, issuer_key, EVP_sha256()) == 0)
    return nullptr;
  return made;
}

} // namespace

struct authority::keys {
  fs::path directory;
  key_ptr key;
  certificate_ptr certificate;
};

namespace {

/// The file's key and certificate, in this order.
result<std::string> make_authority_file() {
  auto key = make_key();
  if (!key)
    return openssl_error("cannot make a key");
  auto certificate =
      make_certificate("troupe cluster", key.get(), nullptr, key.get(), 0);
  if (!certificate)
    return openssl_error("cannot make the authority's certificate");
  return to_pem(key.get()) + to_pem(certificate.get());
}

error damaged(const fs::path& path, std::string_view why) {
  return {errc::corrupt, path.string() + " " + std::string{why} +
                             "; remove it and start again to make a new "
                             "authority (running processes must restart)"};
}

fs::path secret_file(const fs::path& directory) {
  return directory / "secret";
}

fs::path revoked_file(const fs::path& directory) {
  return directory / "revoked";
}

result<void> make_secret(const fs::path& file, if_there other) {
  std::array<unsigned char, 32> random{};
  if (RAND_bytes(random.data(), static_cast<int>(random.size())) != 1)
    return openssl_error("no random numbers");
  auto text =
      sha256_hex({reinterpret_cast<const char*>(random.data()), random.size()});
  return write_private(file, text, other);
}

/// The secret of `directory`, made if it is not there.
result<std::string> secret_in(const fs::path& directory) {
  auto path = secret_file(directory);
  std::error_code ignored;
  if (!fs::exists(path, ignored))
    if (auto done = make_secret(path, if_there::keep); !done)
      return done.error();
  auto text = read_private(path);
  if (!text)
    return text.error();
  if (!is_sha256_hex(*text))
    return error{errc::corrupt, path.string() +
                                    " is damaged; remove it to make a new one "
                                    "(tokens given out are then void)"};
  return text;
}

} // namespace

credentials credentials_in(const fs::path& directory) {
  return {directory / "certificate.pem", directory / "key.pem",
          directory / "authority.pem"};
}

authority::authority(std::shared_ptr<const keys> from)
    : keys_(std::move(from)) {
  // nop
}

result<authority> authority::open(const fs::path& directory) {
  if (auto made = make_private_directory(directory); !made)
    return made.error();
  auto path = directory / "authority.pem";
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    auto text = make_authority_file();
    if (!text)
      return text.error();
    if (auto written = write_private(path, *text, if_there::keep); !written)
      return written.error();
  }
  auto text = read_private(path);
  if (!text)
    return text.error();
  auto read = std::make_shared<keys>();
  read->directory = directory;
  read->key = key_from_pem(*text);
  read->certificate = certificate_from_pem(*text);
  if (!read->key || !read->certificate)
    return damaged(path, "does not hold a key and a certificate");
  if (X509_check_private_key(read->certificate.get(), read->key.get()) != 1) {
    ERR_clear_error();
    return damaged(path, "holds a key and a certificate that do not match");
  }
  if (X509_cmp_current_time(X509_get0_notAfter(read->certificate.get())) <= 0)
    return damaged(path, "is no longer valid");
  if (X509_cmp_current_time(X509_get0_notBefore(read->certificate.get())) >= 0)
    return error{errc::invalid_argument,
                 path.string() + " is not valid yet; is the clock right?"};
  return authority{std::move(read)};
}

result<credentials> authority::issue(std::string_view name,
                                     const fs::path& directory) const {
  auto key = make_key();
  if (!key)
    return openssl_error("cannot make a key");
  auto made = make_certificate(name, key.get(), keys_->certificate.get(),
                               keys_->key.get(), head_era);
  if (!made)
    return openssl_error("cannot issue a certificate");
  if (auto ready = make_private_directory(directory); !ready)
    return ready.error();
  auto list = revoked();
  if (!list)
    return list.error();
  auto files = credentials_in(directory);
  auto write = [](const fs::path& path, const std::string& pem) {
    return write_private(path, pem, if_there::replace);
  };
  for (auto& done : {write(files.certificate, to_pem(made.get())),
                     write(files.key, to_pem(key.get())),
                     write(files.authority, certificate()),
                     revocations::of(files).replace(*list)})
    if (!done)
      return done.error();
  return files;
}

result<std::string> authority::sign(std::string_view request_pem,
                                    std::string_view name,
                                    std::string_view address,
                                    std::uint32_t of_era) const {
  auto key = requested_key(request_pem);
  if (!key)
    return key.error();
  auto made = make_certificate(name, key->get(), keys_->certificate.get(),
                               keys_->key.get(), of_era, place_of(address));
  if (!made)
    return openssl_error("cannot issue a certificate");
  return to_pem(made.get());
}

result<revocation_list> authority::revoked() const {
  return load_revocations(revoked_file(keys_->directory));
}

result<revocation_list> authority::revoke(const std::string& node) const {
  if (auto good = check_worker_name(node); !good)
    return good.error();
  auto list = revoked();
  if (!list)
    return list;
  auto next = newest_era(*list) + 1;
  auto known = std::find_if(list->begin(), list->end(),
                            [&](const auto& x) { return x.node == node; });
  if (known == list->end())
    known = list->insert(known, {node, 0});
  known->since = next;
  if (list->size() > revocations_max || next >= head_era)
    return error{errc::limit,
                 "too many nodes were revoked; a new authority (remove " +
                     keys_->directory.string() +
                     ", start the head again) begins anew"};
  // The tokens first: with one of them the node could come back at once.
  if (auto done = make_secret(secret_file(keys_->directory), if_there::replace);
      !done)
    return done.error();
  if (auto done = save_revocations(revoked_file(keys_->directory), *list);
      !done)
    return done.error();
  return list;
}

std::string authority::certificate() const {
  return to_pem(keys_->certificate.get());
}

std::string authority::fingerprint() const {
  return certificate_hash(keys_->certificate.get());
}

result<std::string> authority::mac(std::string_view text) const {
  auto secret = secret_in(keys_->directory);
  if (!secret)
    return secret.error();
  return hmac_sha256_hex(*secret, text);
}

} // namespace troupe::runtime
