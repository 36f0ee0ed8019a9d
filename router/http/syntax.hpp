#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

/// The grammar of HTTP/1.1 as far as a strict server needs it (RFC 9110, 9112,
/// 3986). Pure functions over bytes; none keeps what it is given.
namespace troupe::http {

/// A method or a field name: one or more token characters.
bool is_token(std::string_view text);

/// A field value: no control character but tab. Bytes above 127 are allowed.
bool is_field_value(std::string_view text);

/// Without the spaces and tabs at both ends.
std::string_view trim(std::string_view text);

/// ASCII letters only, whatever the locale.
bool equal_ignoring_case(std::string_view a, std::string_view b);

/// Whether a comma-separated value names `token`, ignoring case.
bool lists_token(std::string_view value, std::string_view token);

/// A name, an IPv4 address or an IPv6 address in brackets, then perhaps a port.
/// Narrower than RFC 3986: a name has letters, digits, '-', '.' and '_' only.
bool is_host(std::string_view text);

/// A field line without its end, cut at the colon; nothing if the name is not a
/// token (a folded line, a space before the colon) or the value not a value.
struct field {
  std::string_view name;
  std::string_view value;
};
std::optional<field> parse_field(std::string_view line);

/// Digits only; nothing if there are none or they pass 64 bits.
std::optional<std::uint64_t> parse_content_length(std::string_view value);

/// A chunk's first line without its end: 1 to 16 hexadecimal digits, then
/// perhaps extensions behind ';', which are not looked into.
struct chunk_head {
  std::uint64_t size = 0;
  std::size_t extension_bytes = 0;
};
std::optional<chunk_head> parse_chunk_head(std::string_view line);

/// A request target in origin form ("/path?query") or absolute form
/// ("http://host/path?query"). Views into the text that was parsed.
struct target {
  std::string_view authority; ///< empty in origin form
  std::string_view path;      ///< still encoded; empty means "/"
  std::string_view query;     ///< behind '?'
  bool has_query = false;
};
std::optional<target> parse_target(std::string_view text);

/// Percent-decodes a path once. Nothing if an escape is broken or gives a
/// control character, or if the outcome does not begin with '/' or has an
/// empty (but the last), "." or ".." segment. "%2F" becomes '/'.
std::optional<std::string> decode_path(std::string_view path);

} // namespace troupe::http
