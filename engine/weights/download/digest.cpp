#include "engine/weights/download/digest.hpp"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <vector>

namespace troupe::download {

struct digest::state {
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context{
      EVP_MD_CTX_new(), EVP_MD_CTX_free};
};

namespace {

/// An OpenSSL without these hashes can check nothing.
void require(bool done) {
  if (!done)
    std::abort();
}

const EVP_MD* algorithm(digest::kind which) {
  switch (which) {
  case digest::kind::md5:
    return EVP_md5();
  case digest::kind::sha1:
    return EVP_sha1();
  default:
    return EVP_sha256();
  }
}

std::string_view view(const unsigned char* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

} // namespace

digest::digest(kind which) : state_(std::make_unique<state>()) {
  require(EVP_DigestInit_ex(state_->context.get(), algorithm(which), nullptr));
}

digest::digest(digest&&) noexcept = default;
digest& digest::operator=(digest&&) noexcept = default;
digest::~digest() = default;

void digest::add(std::string_view bytes) {
  require(EVP_DigestUpdate(state_->context.get(), bytes.data(), bytes.size()));
}

std::string digest::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> out{};
  unsigned size = 0;
  require(EVP_DigestFinal_ex(state_->context.get(), out.data(), &size));
  return to_hex(view(out.data(), size));
}

std::string sha256_hex(std::string_view bytes) {
  digest out{digest::kind::sha256};
  out.add(bytes);
  return out.hex();
}

std::string hmac_sha256(std::string_view key, std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> out{};
  unsigned size = 0;
  require(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
               reinterpret_cast<const unsigned char*>(text.data()), text.size(),
               out.data(), &size) != nullptr);
  return std::string{view(out.data(), size)};
}

std::string to_hex(std::string_view bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  for (unsigned char byte : bytes) {
    out += digits[byte >> 4];
    out += digits[byte & 15];
  }
  return out;
}

bool is_hex(std::string_view text, std::size_t digits) {
  return text.size() == digits &&
         text.find_first_not_of("0123456789abcdef") == text.npos;
}

namespace {

digest begun(const content_check& check, std::uint64_t size) {
  using by = content_check::kind;
  if (check.by == by::git_blob) {
    digest out{digest::kind::sha1};
    auto head = fmt::format("blob {}", size);
    out.add({head.c_str(), head.size() + 1});
    return out;
  }
  return digest{check.by == by::md5 ? digest::kind::md5 : digest::kind::sha256};
}

} // namespace

result<void> check_content(const std::filesystem::path& path,
                           std::uint64_t size, const content_check& check,
                           const std::function<bool(std::uint64_t)>& on_bytes) {
  if (check.by == content_check::kind::size_only)
    return {};
  constexpr std::size_t piece_bytes = 1u << 20;
  std::ifstream file{path, std::ios::binary};
  std::vector<char> piece(piece_bytes);
  auto sum = begun(check, size);
  std::uint64_t read = 0;
  while (read < size) {
    auto want = static_cast<std::streamsize>(
        std::min<std::uint64_t>(piece_bytes, size - read));
    if (!file.read(piece.data(), want))
      return error{errc::io, path.string() + ": cannot be read"};
    sum.add({piece.data(), static_cast<std::size_t>(want)});
    read += static_cast<std::uint64_t>(want);
    if (!on_bytes(static_cast<std::uint64_t>(want)))
      return error{errc::cancelled, "interrupted"};
  }
  if (sum.hex() != check.hex)
    return error{errc::corrupt, "its content is not what was announced"};
  return {};
}

} // namespace troupe::download
