#pragma once

#include <string>
#include <string_view>

namespace troupe::runtime {

/// SHA-256 of a text, in lower-case hex (64 digits).
std::string sha256_hex(std::string_view);

/// HMAC-SHA256 of a text, in lower-case hex.
std::string hmac_sha256_hex(std::string_view key, std::string_view text);

/// True if the text is 64 digits of lower-case hex.
bool is_sha256_hex(std::string_view);

/// Equal or not, in a time that does not tell where they differ.
bool equal_secrets(std::string_view, std::string_view);

} // namespace troupe::runtime
