#include "actors/runtime/authority.hpp"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <sys/stat.h>
#include <unistd.h>

namespace fs = std::filesystem;

namespace troupe::runtime {

namespace {

template <auto Free>
struct freed_by {
  template <class T>
  void operator()(T* x) const {
    Free(x);
  }
};

using key_ptr = std::unique_ptr<EVP_PKEY, freed_by<EVP_PKEY_free>>;
using certificate_ptr = std::unique_ptr<X509, freed_by<X509_free>>;
using bio_ptr = std::unique_ptr<BIO, freed_by<BIO_free>>;
using extension_ptr =
    std::unique_ptr<X509_EXTENSION, freed_by<X509_EXTENSION_free>>;

constexpr long days_valid = 3650;
constexpr long clock_skew_seconds = 24 * 60 * 60;
constexpr std::size_t pem_bytes_max = 64 * 1024;

error openssl_error(std::string what) {
  char text[256] = "";
  if (auto code = ERR_get_error())
    ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return {errc::internal, std::move(what) + ": " + text};
}

error file_error(std::string_view what, const fs::path& path) {
  return {errc::io, "cannot " + std::string{what} + " " + path.string() + ": " +
                        std::strerror(errno)};
}

// -- files -------------------------------------------------------------------

result<void> make_private_directory(const fs::path& path) {
  std::error_code failed;
  fs::create_directories(path, failed);
  if (failed)
    return error{errc::io, "cannot make the directory " + path.string() + ": " +
                               failed.message()};
  if (::chmod(path.c_str(), 0700) != 0)
    return file_error("restrict", path);
  return {};
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    auto n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return ::fsync(fd) == 0;
}

/// Writes `path` as a whole (mode 0600). `replace` says whether one that is
/// already there gives way or stays.
result<void> write_private(const fs::path& path, std::string_view text,
                           bool replace) {
  auto draft = path.string() + ".XXXXXX";
  int fd = ::mkostemp(draft.data(), O_CLOEXEC); // mode 0600
  if (fd < 0)
    return file_error("write", path);
  bool done = write_all(fd, text);
  done = ::close(fd) == 0 && done;
  if (done && replace)
    done = ::rename(draft.c_str(), path.c_str()) == 0;
  else if (done)
    done = ::link(draft.c_str(), path.c_str()) == 0 || errno == EEXIST;
  auto why = file_error("write", path);
  ::unlink(draft.c_str());
  if (!done)
    return why;
  return {};
}

result<std::string> read_private(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    return file_error("read", path);
  if ((info.st_mode & 077) != 0)
    return error{errc::invalid_argument,
                 path.string() + " holds a private key but others may read "
                                 "it; its mode must be 0600"};
  if (static_cast<std::size_t>(info.st_size) > pem_bytes_max)
    return error{errc::corrupt, path.string() + " is too large"};
  std::ifstream in{path, std::ios::binary};
  std::string text{std::istreambuf_iterator<char>{in}, {}};
  if (!in)
    return error{errc::io, "cannot read " + path.string()};
  return text;
}

// -- certificates ------------------------------------------------------------

std::string content_of(BIO* bio) {
  char* data = nullptr;
  auto size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

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

bool add_extension(X509* to, X509* issuer, int kind, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, to, nullptr, nullptr, 0);
  extension_ptr made{X509V3_EXT_conf_nid(nullptr, &context, kind, value)};
  return made && X509_add_ext(to, made.get(), -1) == 1;
}

bool set_random_serial(X509* certificate) {
  std::uint64_t serial = 0;
  return RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof serial) ==
             1 &&
         ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate),
                                 serial >> 1);
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

/// A certificate for `key`, signed by `issuer` or, without one, by itself.
certificate_ptr make_certificate(std::string_view name, EVP_PKEY* key,
                                 X509* issuer, EVP_PKEY* issuer_key) {
  certificate_ptr made{X509_new()};
  auto* x = made.get();
  bool own = issuer == nullptr;
  if (own)
    issuer = x;
  bool done = x && X509_set_version(x, X509_VERSION_3) == 1 &&
              set_random_serial(x) &&
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
        add_extension(x, issuer, NID_ext_key_usage, "serverAuth,clientAuth");
  if (!done || X509_sign(x, issuer_key, EVP_sha256()) == 0)
    return nullptr;
  return made;
}

} // namespace

struct authority::keys {
  key_ptr key;
  certificate_ptr certificate;
};

namespace {

/// The file's key and certificate, in this order.
result<std::string> make_authority_file() {
  key_ptr key{EVP_EC_gen("P-256")};
  if (!key)
    return openssl_error("cannot make a key");
  auto certificate =
      make_certificate("troupe cluster", key.get(), nullptr, key.get());
  if (!certificate)
    return openssl_error("cannot make the authority's certificate");
  return to_pem(key.get()) + to_pem(certificate.get());
}

error damaged(const fs::path& path, std::string_view why) {
  return {errc::corrupt, path.string() + " " + std::string{why} +
                             "; remove it and start again to make a new "
                             "authority (running processes must restart)"};
}

} // namespace

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
    if (auto written = write_private(path, *text, false); !written)
      return written.error();
  }
  auto text = read_private(path);
  if (!text)
    return text.error();
  bio_ptr in{BIO_new_mem_buf(text->data(), static_cast<int>(text->size()))};
  auto read = std::make_shared<keys>();
  read->key.reset(PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr));
  read->certificate.reset(
      PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
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
  key_ptr key{EVP_EC_gen("P-256")};
  if (!key)
    return openssl_error("cannot make a key");
  auto certificate = make_certificate(name, key.get(), keys_->certificate.get(),
                                      keys_->key.get());
  if (!certificate)
    return openssl_error("cannot issue a certificate");
  if (auto made = make_private_directory(directory); !made)
    return made.error();
  credentials files{directory / "certificate.pem", directory / "key.pem",
                    directory / "authority.pem"};
  auto write = [](const fs::path& path, const std::string& pem) {
    return write_private(path, pem, true);
  };
  for (auto& done : {write(files.certificate, to_pem(certificate.get())),
                     write(files.key, to_pem(key.get())),
                     write(files.authority, to_pem(keys_->certificate.get()))})
    if (!done)
      return done.error();
  return files;
}

} // namespace troupe::runtime
