#pragma once

#include "engine/codec/error.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace troupe::download {

/// A hash over bytes that come one after the other.
class digest {
public:
  enum class kind : std::uint8_t { md5, sha1, sha256 };

  explicit digest(kind);
  digest(digest&&) noexcept;
  digest& operator=(digest&&) noexcept;
  ~digest();

  void add(std::string_view bytes);

  /// Lower-case hex; nothing may be added afterwards.
  std::string hex();

private:
  struct state;
  std::unique_ptr<state> state_;
};

std::string sha256_hex(std::string_view bytes);

/// The raw 32 bytes.
std::string hmac_sha256(std::string_view key, std::string_view text);
std::string to_hex(std::string_view bytes);

/// True if `text` is so many digits of lower-case hex.
bool is_hex(std::string_view text, std::size_t digits);

/// By what the content of a file is known.
struct content_check {
  enum class kind : std::uint8_t {
    size_only, ///< the origin says nothing more
    sha256,
    git_blob, ///< SHA-1 over "blob SIZE", a zero byte and the content
    md5,
  };
  kind by = kind::size_only;
  std::string hex;

  bool operator==(const content_check&) const = default;
};

/// Reads `path` and says whether it is what `check` knows. `on_bytes` hears how
/// many bytes were read since its last call; false from it ends the reading
/// (errc::cancelled). Errors: errc::corrupt if the content is another one.
result<void> check_content(const std::filesystem::path& path,
                           std::uint64_t size, const content_check& check,
                           const std::function<bool(std::uint64_t)>& on_bytes);

} // namespace troupe::download
