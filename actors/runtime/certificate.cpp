#include "actors/runtime/certificate.hpp"

#include "actors/runtime/private_file.hpp"
#include "actors/runtime/sha256.hpp"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

#include <array>

namespace troupe::runtime {

namespace {

std::string content_of(BIO* bio) {
  char* data = nullptr;
  auto size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

bio_ptr reader_of(std::string_view text) {
  return bio_ptr{BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))};
}

/// Nobody is asked for the password of a key.
int no_password(char*, int, int, void*) {
  return -1;
}

bool is_p256(EVP_PKEY* key) {
  char group[32] = "";
  std::size_t size = 0;
  return EVP_PKEY_is_a(key, "EC") == 1 &&
         EVP_PKEY_get_group_name(key, group, sizeof group, &size) == 1 &&
         std::string_view{group} == "prime256v1";
}

/// Whether `certificate` is good for `purpose` by the word of `issuer` alone.
bool verify(X509* certificate, X509* issuer, int purpose) {
  store_ptr store{X509_STORE_new()};
  store_context_ptr context{X509_STORE_CTX_new()};
  return store && context && X509_STORE_add_cert(store.get(), issuer) == 1 &&
         X509_STORE_CTX_init(context.get(), store.get(), certificate,
                             nullptr) == 1 &&
         X509_STORE_CTX_set_purpose(context.get(), purpose) == 1 &&
         X509_verify_cert(context.get()) == 1;
}

} // namespace

std::string to_pem(X509* certificate) {
  bio_ptr out{BIO_new(BIO_s_mem())};
  if (!out || PEM_write_bio_X509(out.get(), certificate) != 1)
    return {};
  return content_of(out.get());
}

std::string to_pem(EVP_PKEY* key) {
  bio_ptr out{BIO_new(BIO_s_mem())};
  if (!out || PEM_write_bio_PrivateKey(out.get(), key, nullptr, nullptr, 0,
                                       nullptr, nullptr) != 1)
    return {};
  return content_of(out.get());
}

key_ptr key_from_pem(std::string_view text) {
  auto in = reader_of(text);
  key_ptr out{PEM_read_bio_PrivateKey(in.get(), nullptr, no_password, nullptr)};
  ERR_clear_error();
  return out;
}

certificate_ptr certificate_from_pem(std::string_view text) {
  auto in = reader_of(text);
  certificate_ptr out{
      PEM_read_bio_X509(in.get(), nullptr, no_password, nullptr)};
  ERR_clear_error();
  return out;
}

request_ptr request_from_pem(std::string_view text) {
  auto in = reader_of(text);
  request_ptr out{
      PEM_read_bio_X509_REQ(in.get(), nullptr, no_password, nullptr)};
  ERR_clear_error();
  return out;
}

key_ptr make_key() {
  return key_ptr{EVP_EC_gen("P-256")};
}

std::string make_request(EVP_PKEY* key) {
  request_ptr made{X509_REQ_new()};
  bio_ptr out{BIO_new(BIO_s_mem())};
  bool done = made && out &&
              X509_REQ_set_version(made.get(), X509_REQ_VERSION_1) == 1 &&
              X509_REQ_set_pubkey(made.get(), key) == 1 &&
              X509_REQ_sign(made.get(), key, EVP_sha256()) != 0 &&
              PEM_write_bio_X509_REQ(out.get(), made.get()) == 1;
  ERR_clear_error();
  return done ? content_of(out.get()) : std::string{};
}

result<key_ptr> requested_key(std::string_view request_pem) {
  auto request = request_from_pem(request_pem);
  if (!request)
    return error{errc::invalid_argument,
                 "the certificate request is not one (PEM)"};
  key_ptr key{X509_REQ_get_pubkey(request.get())};
  bool right_kind = key && is_p256(key.get());
  bool signed_by_key =
      right_kind && X509_REQ_verify(request.get(), key.get()) == 1;
  ERR_clear_error();
  if (!right_kind)
    return error{errc::unsupported,
                 "the certificate request's key is not of EC P-256"};
  if (!signed_by_key)
    return error{errc::invalid_argument,
                 "the certificate request is not signed by its key"};
  return key;
}

std::string certificate_name(X509* certificate) {
  auto* subject = X509_get_subject_name(certificate);
  auto at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0)
    return {};
  unsigned char* text = nullptr;
  auto size = ASN1_STRING_to_UTF8(
      &text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  ERR_clear_error();
  if (size < 0)
    return {};
  std::string out{reinterpret_cast<const char*>(text),
                  static_cast<std::size_t>(size)};
  OPENSSL_free(text);
  return out;
}

// A serial number is a 1, the era and a random number, each byte after byte,
// highest first. Those without era had 8 bytes at most.

namespace {

constexpr int serial_bytes = 1 + sizeof(era) + 8;

} // namespace

bool set_serial(X509* certificate, era of) {
  std::array<unsigned char, serial_bytes> bytes{1};
  for (std::size_t i = 0; i < sizeof(era); ++i)
    bytes[1 + i] = static_cast<unsigned char>(of >> (24 - 8 * i));
  if (RAND_bytes(bytes.data() + 1 + sizeof(era), 8) != 1)
    return false;
  number_ptr number{BN_bin2bn(bytes.data(), serial_bytes, nullptr)};
  return number &&
         BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate));
}

era certificate_era(X509* certificate) {
  number_ptr number{
      ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr)};
  std::array<unsigned char, serial_bytes> bytes{};
  if (!number || BN_is_negative(number.get()) ||
      BN_num_bytes(number.get()) != serial_bytes)
    return 0;
  BN_bn2bin(number.get(), bytes.data());
  era out = 0;
  for (std::size_t i = 0; i < sizeof(era); ++i)
    out = out << 8 | bytes[1 + i];
  return bytes[0] == 1 ? out : 0;
}

std::string certificate_hash(X509* certificate) {
  unsigned char* der = nullptr;
  int size = i2d_X509(certificate, &der);
  if (size <= 0)
    return {};
  auto out = sha256_hex(
      {reinterpret_cast<const char*>(der), static_cast<std::size_t>(size)});
  OPENSSL_free(der);
  return out;
}

bool is_good(X509* certificate, X509* issuer) {
  bool good = verify(certificate, issuer, X509_PURPOSE_SSL_CLIENT) &&
              verify(certificate, issuer, X509_PURPOSE_SSL_SERVER);
  ERR_clear_error();
  return good;
}

result<void> check_credentials(const credentials& files) {
  auto key_pem = read_private(files.key);
  if (!key_pem)
    return key_pem.error();
  auto own_pem = read_private(files.certificate);
  if (!own_pem)
    return own_pem.error();
  auto issuer_pem = read_private(files.authority);
  if (!issuer_pem)
    return issuer_pem.error();
  auto key = key_from_pem(*key_pem);
  auto own = certificate_from_pem(*own_pem);
  auto issuer = certificate_from_pem(*issuer_pem);
  auto wrong = [&](const std::filesystem::path& path, std::string_view why) {
    return error{errc::corrupt, path.string() + " " + std::string{why}};
  };
  if (!key)
    return wrong(files.key, "does not hold a key");
  if (!own)
    return wrong(files.certificate, "does not hold a certificate");
  if (!issuer)
    return wrong(files.authority, "does not hold a certificate");
  if (X509_check_private_key(own.get(), key.get()) != 1) {
    ERR_clear_error();
    return wrong(files.certificate, "is not of the key beside it");
  }
  if (!is_good(own.get(), issuer.get()))
    return wrong(files.certificate,
                 "is out of time or not of the authority beside it");
  return {};
}

} // namespace troupe::runtime
