#include "actors/runtime/sha256.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>
#include <cstdlib>

namespace troupe::runtime {

namespace {

using digest_bytes = std::array<unsigned char, EVP_MAX_MD_SIZE>;

constexpr std::string_view hex_digits = "0123456789abcdef";

std::string to_hex(const digest_bytes& digest, unsigned size) {
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    out += hex_digits[digest[i] >> 4];
    out += hex_digits[digest[i] & 15];
  }
  return out;
}

} // namespace

std::string sha256_hex(std::string_view content) {
  digest_bytes digest{};
  unsigned size = 0;
  if (EVP_Digest(content.data(), content.size(), digest.data(), &size,
                 EVP_sha256(), nullptr) != 1)
    std::abort(); // no SHA-256 in this OpenSSL: nothing can be trusted
  return to_hex(digest, size);
}

std::string hmac_sha256_hex(std::string_view key, std::string_view text) {
  digest_bytes digest{};
  unsigned size = 0;
  if (!HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
            reinterpret_cast<const unsigned char*>(text.data()), text.size(),
            digest.data(), &size))
    std::abort();
  return to_hex(digest, size);
}

bool is_sha256_hex(std::string_view text) {
  return text.size() == 64 &&
         text.find_first_not_of(hex_digits) == std::string_view::npos;
}

bool equal_secrets(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

} // namespace troupe::runtime
